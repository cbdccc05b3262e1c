// Profile 3 with AVX-512, any lanes: sixteen to a register, in the last one those that are left. A group ends where its
// channel does, and a lane without a pair keeps its state.
#if defined(__x86_64__)

#include "avx512.hpp"
#include "pair_kernels.hpp"

namespace percodec {
namespace {

using Channel = PairTables::Channel;

struct NarrowRow {
    Numbers64 frequency_start, inverse;
};

PERCODEC_AVX512 inline __m512i encode_narrow(const NarrowRow& row, __m256i symbols, __m512i x, __mmask16 active,
                                             std::uint8_t*& next) noexcept {
    const __m512i pair = _mm512_cvtepu16_epi32(_mm256_maddubs_epi16(symbols, _mm256_set1_epi16(kFirstTimes8)));
    const __m512i found = row.frequency_start.at(pair);
    const __m512i frequency = _mm512_and_si512(found, _mm512_set1_epi32(0xFFFF));
    const __mmask16 due = _mm512_mask_cmpge_epu32_mask(active, x, _mm512_slli_epi32(frequency, 32 - kPairBits));
    const unsigned count = static_cast<unsigned>(_mm_popcnt_u32(due));
    next -= 2 * count;
    _mm256_mask_storeu_epi16(next, static_cast<__mmask16>((1u << count) - 1u),
                             _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(due, x)));
    const __m512i y = _mm512_mask_srli_epi32(x, due, x, 16);
    const __m512i quotient = estimate(y, _mm512_castsi512_ps(row.inverse.at(pair)));
    // The remainder, or that and one frequency more, fits 16 bits: only the low words of the product matter.
    const __m512i left = _mm512_maskz_sub_epi16(0x55555555, y, _mm512_mullo_epi16(quotient, frequency));
    const __m512i grown =
        _mm512_add_epi32(_mm512_slli_epi32(quotient, kPairBits), _mm512_add_epi32(left, _mm512_srli_epi32(found, 16)));
    const __m512i whole = _mm512_set1_epi32(static_cast<int>(kPairScale));
    const __mmask16 over = _mm512_cmpge_epu32_mask(left, frequency);
    return _mm512_mask_mov_epi32(x, active,
                                 _mm512_mask_add_epi32(grown, over, grown, _mm512_sub_epi32(whole, frequency)));
}

template <unsigned Thresholds>
struct NarrowDecodeRow {
    __m512i first[Thresholds], second[Thresholds];
    Numbers64 frequency_start;
};

template <unsigned Thresholds>
PERCODEC_AVX512 inline __m512i decode_narrow(const NarrowDecodeRow<Thresholds>& row, __m512i x, __mmask16 active,
                                             const std::uint8_t*& next, __m256i* symbols) noexcept {
    const __m512i slot = _mm512_and_si512(x, _mm512_set1_epi32(kSlotMask));
    const __m512i one = _mm512_set1_epi32(1), step = _mm512_set1_epi32(256);
    __m512i sum[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (unsigned k = 0; k < Thresholds; ++k)
        sum[k % 2] = _mm512_mask_add_epi32(sum[k % 2], _mm512_cmpge_epu32_mask(slot, row.first[k]), sum[k % 2], one);
    const __m512i first = _mm512_add_epi32(sum[0], sum[1]);
    sum[0] = first;
    sum[1] = _mm512_setzero_si512();
    for (unsigned k = 0; k < Thresholds; ++k) {
        const __m512i threshold = _mm512_permutexvar_epi32(first, row.second[k]);
        sum[k % 2] = _mm512_mask_add_epi32(sum[k % 2], _mm512_cmpge_epu32_mask(slot, threshold), sum[k % 2], step);
    }
    const __m512i both = _mm512_add_epi32(sum[0], sum[1]);
    *symbols = _mm512_cvtepi32_epi16(both);
    const __m512i pair = _mm512_or_si512(_mm512_slli_epi32(both, 3), _mm512_srli_epi32(both, 8));
    const __m512i found = row.frequency_start.at(pair);
    const __m512i frequency = _mm512_and_si512(found, _mm512_set1_epi32(0xFFFF));
    const __m512i offset = _mm512_sub_epi32(slot, _mm512_srli_epi32(found, 16));
    const __m512i stepped = _mm512_add_epi32(_mm512_mullo_epi32(frequency, _mm512_srli_epi32(x, kPairBits)), offset);
    const __mmask16 due =
        _mm512_mask_cmplt_epu32_mask(active, stepped, _mm512_set1_epi32(static_cast<int>(kPairStateLow)));
    const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(next)));
    next += 2 * static_cast<unsigned>(_mm_popcnt_u32(due));
    const __m512i spread = _mm512_maskz_expand_epi32(due, words);
    const __m512i refilled = _mm512_mask_or_epi32(stepped, due, _mm512_slli_epi32(stepped, 16), spread);
    return _mm512_mask_mov_epi32(x, active, refilled);
}

// Which lanes of register r take part in a group of `symbols`, and the bytes that are theirs.
struct Share {
    __mmask16 lanes;
    __mmask32 bytes;
};
PERCODEC_AVX512 inline Share share(unsigned r, std::size_t symbols) noexcept {
    const std::size_t mine = symbols > 32 * r ? symbols - 32 * r : 0, pairs = (mine + 1) / 2;
    return {first_of_16(pairs), mine >= 32 ? ~__mmask32{0} : (__mmask32{1} << mine) - 1u};
}

template <unsigned Registers>
PERCODEC_AVX512 std::uint8_t* encode_narrow(const PairTables& tables, const std::uint8_t* symbols,
                                            const PairSteps& steps, unsigned lanes, std::uint32_t* states,
                                            std::uint8_t* begin, std::uint8_t* next, std::uint8_t* highest) noexcept {
    __m512i x[Registers];
    for (unsigned r = 0; r < Registers; ++r) x[r] = _mm512_loadu_si512(states + 16 * r);
    __m256i most = _mm256_setzero_si256();
    const std::size_t group = 2 * std::size_t{lanes};
    for (unsigned index = tables.channels(); index-- > 0;) {
        const std::size_t count = steps.of(index), rest = count % group;
        const Channel& c = tables.channel(index);
        const NarrowRow row{Numbers64(c.frequency_start), Numbers64(c.inverse)};
        const std::uint8_t* s = symbols + std::size_t{index} * steps.plane + count;
        std::size_t size = rest == 0 ? group : rest;
        for (std::size_t left = count; left > 0; left -= size, size = group) {
            size = size < left ? size : left;
            s -= size;
            if (static_cast<std::size_t>(next - begin) < size + 1) return nullptr;
            for (unsigned r = Registers; r-- > 0;) {
                const Share mine = share(r, size);
                const __m256i loaded = _mm256_maskz_loadu_epi8(mine.bytes, s + 32 * r);
                most = _mm256_max_epu8(most, loaded);
                x[r] = encode_narrow(row, loaded, x[r], mine.lanes, next);
            }
        }
    }
    for (unsigned r = 0; r < Registers; ++r) _mm512_storeu_si512(states + 16 * r, x[r]);
    *highest = highest_byte(_mm512_zextsi256_si512(most));
    return next;
}

template <unsigned Registers, unsigned Thresholds>
PERCODEC_AVX512 bool decode_narrow(const PairTables& tables, const PairSteps& steps, unsigned lanes,
                                   std::uint32_t* states, WordReader& words, std::uint8_t* symbols) noexcept {
    __m512i x[Registers];
    for (unsigned r = 0; r < Registers; ++r) x[r] = _mm512_loadu_si512(states + 16 * r);
    const std::size_t group = 2 * std::size_t{lanes};
    __m256i found;
    for (unsigned index = 0; index < tables.channels(); ++index) {
        const Channel& c = tables.channel(index);
        NarrowDecodeRow<Thresholds> row{{}, {}, Numbers64(c.frequency_start)};
        for (unsigned k = 0; k < Thresholds; ++k) {
            row.first[k] = _mm512_set1_epi32(c.first[k]);
            row.second[k] = _mm512_cvtepu16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(c.second[k])));
        }
        for (std::size_t left = steps.of(index); left > 0;) {
            const std::size_t size = left < group ? left : group;
            if (!words.ready()) return false;
            const std::uint8_t* next = words.next;
            for (unsigned r = 0; r < Registers; ++r) {
                const Share mine = share(r, size);
                x[r] = decode_narrow<Thresholds>(row, x[r], mine.lanes, next, &found);
                _mm256_mask_storeu_epi8(symbols + 32 * r, mine.bytes, found);
            }
            words.next = next;
            symbols += size;
            left -= size;
        }
    }
    for (unsigned r = 0; r < Registers; ++r) _mm512_storeu_si512(states + 16 * r, x[r]);
    return true;
}

}  // namespace

std::uint8_t* encode_pairs_avx512(const PairTables& tables, const std::uint8_t* symbols, const PairSteps& steps,
                                  unsigned lanes, std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next,
                                  std::uint8_t* highest) noexcept {
    switch ((lanes + 15) / 16) {
        case 1:
            return encode_narrow<1>(tables, symbols, steps, lanes, states, begin, next, highest);
        case 2:
            return encode_narrow<2>(tables, symbols, steps, lanes, states, begin, next, highest);
        case 3:
            return encode_narrow<3>(tables, symbols, steps, lanes, states, begin, next, highest);
        default:
            return encode_narrow<4>(tables, symbols, steps, lanes, states, begin, next, highest);
    }
}

bool decode_pairs_avx512(const PairTables& tables, const PairSteps& steps, unsigned lanes, std::uint32_t* states,
                         WordReader& words, std::uint8_t* symbols) noexcept {
    const bool small = tables.levels() <= 6;
    switch ((lanes + 15) / 16) {
        case 1:
            return (small ? decode_narrow<1, 5> : decode_narrow<1, 7>)(tables, steps, lanes, states, words, symbols);
        case 2:
            return (small ? decode_narrow<2, 5> : decode_narrow<2, 7>)(tables, steps, lanes, states, words, symbols);
        case 3:
            return (small ? decode_narrow<3, 5> : decode_narrow<3, 7>)(tables, steps, lanes, states, words, symbols);
        default:
            return (small ? decode_narrow<4, 5> : decode_narrow<4, 7>)(tables, steps, lanes, states, words, symbols);
    }
}

PERCODEC_AVX512 std::uint64_t cost_pairs_avx512(const Channel& channel, const std::uint8_t* symbols,
                                                std::size_t plane) noexcept {
    const Words64 cost(channel.cost);
    std::uint64_t total = 0;
    for (std::size_t left = plane / 64; left > 0;) {
        __m512i sum = _mm512_setzero_si512();
        const std::size_t block = left < 4096 ? left : 4096;  // sums of 2 * 3584 each stay below 2^31
        for (std::size_t k = 0; k < block; ++k, symbols += 64) {
            const __m512i pair = _mm512_maddubs_epi16(_mm512_loadu_si512(symbols), _mm512_set1_epi16(kFirstTimes8));
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(cost.at(pair), _mm512_set1_epi16(1)));
        }
        alignas(64) std::uint32_t each[16];
        _mm512_store_si512(each, sum);
        for (const std::uint32_t one : each) total += one;
        left -= block;
    }
    return total;
}

}  // namespace percodec

#endif
