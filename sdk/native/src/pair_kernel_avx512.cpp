// Profile 3 in planes, one register of lanes or two.
#if defined(__x86_64__)

#include "pair_kernels.hpp"
#include "planes_avx512.hpp"

namespace percodec {
namespace {

using planes::Planes;
using Channel = PairTables::Channel;

PERCODEC_AVX512 inline __mmask64 first_bytes(std::size_t count) noexcept {
    return count >= 64 ? ~__mmask64{0} : (__mmask64{1} << count) - 1u;
}

struct EncodeRow {
    Words64 frequency, start, reciprocal_low, reciprocal_high;
};

// x / frequency << 14, + x % frequency + start, for x below frequency << 18. Of the product with a reciprocal of 32
// bits three parts are enough: they leave out less than one each, the reciprocal's own rounding another. So the
// quotient is 0 to 3 too low, and what is left below four frequencies, which is 16 bits.
PERCODEC_AVX512 inline Planes grow(const Planes& x, const EncodeRow& row, __m512i pair, __m512i frequency) noexcept {
    const __m512i one = _mm512_set1_epi16(1);
    const __m512i low = row.reciprocal_low.at(pair), high = row.reciprocal_high.at(pair);
    const __m512i below = _mm512_add_epi16(_mm512_mulhi_epu16(x.high, low), _mm512_mulhi_epu16(x.low, high));
    const __m512i estimate = _mm512_add_epi16(_mm512_mullo_epi16(x.high, high), below);
    const __mmask32 carry = _mm512_cmplt_epu16_mask(estimate, below);
    __m512i q_high = _mm512_mulhi_epu16(x.high, high);
    q_high = _mm512_mask_add_epi16(q_high, carry, q_high, one);

    __m512i q = estimate, left = _mm512_sub_epi16(x.low, _mm512_mullo_epi16(q, frequency));
    const __m512i twice = _mm512_add_epi16(frequency, frequency);
    const __mmask32 by_two = _mm512_cmpge_epu16_mask(left, twice);
    q = _mm512_mask_add_epi16(q, by_two, q, _mm512_set1_epi16(2));
    left = _mm512_mask_sub_epi16(left, by_two, left, twice);
    const __mmask32 by_one = _mm512_cmpge_epu16_mask(left, frequency);
    q = _mm512_mask_add_epi16(q, by_one, q, one);
    left = _mm512_mask_sub_epi16(left, by_one, left, frequency);
    q_high = _mm512_mask_add_epi16(q_high, _mm512_cmplt_epu16_mask(q, estimate), q_high, one);

    const __m512i slot = _mm512_add_epi16(left, row.start.at(pair));
    return {_mm512_add_epi16(_mm512_slli_epi16(q, kPairBits), slot), _mm512_shldi_epi16(q_high, q, kPairBits)};
}

// `active`: lanes that have a pair. With Rest the others keep their states; without it they are of no use.
template <bool Rest>
PERCODEC_AVX512 inline void encode_group(const EncodeRow& row, __m512i symbols, Planes& x, __mmask32 active,
                                         std::uint8_t*& next) noexcept {
    const __m512i pair = _mm512_maddubs_epi16(symbols, _mm512_set1_epi16(kFirstTimes8));
    const __m512i frequency = row.frequency.at(pair);
    const __m512i limit = _mm512_slli_epi16(frequency, 16 - kPairBits);  // of x >> 16
    const __mmask32 due = _mm512_mask_cmpge_epu16_mask(active, x.high, limit);
    const Planes grown = grow(planes::send(x, due, next), row, pair, frequency);
    x.low = Rest ? _mm512_mask_mov_epi16(x.low, active, grown.low) : grown.low;
    x.high = Rest ? _mm512_mask_mov_epi16(x.high, active, grown.high) : grown.high;
}

template <unsigned Thresholds>
struct DecodeRow {
    __m512i first[Thresholds], second[Thresholds];
    Words64 frequency, start;
};

// Pairs, a word each: first symbol | second << 8.
template <bool Rest, unsigned Thresholds>
PERCODEC_AVX512 inline __m512i decode_group(const DecodeRow<Thresholds>& row, Planes& x, __mmask32 active,
                                            const std::uint8_t*& next) noexcept {
    const __m512i slot = _mm512_and_si512(x.low, _mm512_set1_epi16(kSlotMask));
    const __m512i one = _mm512_set1_epi16(1), step = _mm512_set1_epi16(256);
    __m512i sum[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};  // each waits for itself only
    for (unsigned k = 0; k < Thresholds; ++k)
        sum[k % 2] = _mm512_mask_add_epi16(sum[k % 2], _mm512_cmpge_epu16_mask(slot, row.first[k]), sum[k % 2], one);
    const __m512i first = _mm512_add_epi16(sum[0], sum[1]);
    sum[0] = first;
    sum[1] = _mm512_setzero_si512();
    for (unsigned k = 0; k < Thresholds; ++k) {
        const __m512i threshold = _mm512_permutexvar_epi16(first, row.second[k]);
        sum[k % 2] = _mm512_mask_add_epi16(sum[k % 2], _mm512_cmpge_epu16_mask(slot, threshold), sum[k % 2], step);
    }
    const __m512i symbols = _mm512_add_epi16(sum[0], sum[1]);
    const __m512i pair = _mm512_or_si512(_mm512_slli_epi16(symbols, 3), _mm512_srli_epi16(symbols, 8));
    const __m512i frequency = row.frequency.at(pair), start = row.start.at(pair);

    const __m512i times_low = _mm512_shldi_epi16(x.high, x.low, 16 - kPairBits);  // x >> 14
    const __m512i times_high = _mm512_srli_epi16(x.high, kPairBits);
    const __m512i upper =
        _mm512_add_epi16(_mm512_mulhi_epu16(frequency, times_low), _mm512_mullo_epi16(frequency, times_high));
    const __m512i offset = _mm512_sub_epi16(slot, start);
    const __m512i low = _mm512_add_epi16(_mm512_mullo_epi16(frequency, times_low), offset);
    const __mmask32 carry = _mm512_cmplt_epu16_mask(low, offset);
    const __m512i high = _mm512_mask_add_epi16(upper, carry, upper, one);
    const __mmask32 zero = _mm512_testn_epi16_mask(upper, upper);
    const Planes full = planes::fetch({low, high}, zero & ~carry & active, next);
    x.low = Rest ? _mm512_mask_mov_epi16(x.low, active, full.low) : full.low;
    x.high = Rest ? _mm512_mask_mov_epi16(x.high, active, full.high) : full.high;
    return symbols;
}

template <unsigned Registers, unsigned Thresholds>
PERCODEC_AVX512 bool decode(const PairTables& tables, const PairSteps& steps, unsigned lanes, std::uint32_t* states,
                            WordReader& words, std::uint8_t* symbols) noexcept {
    constexpr unsigned kLast = Registers - 1;
    const std::size_t group = 2 * std::size_t{lanes};
    const __mmask32 others = planes::first_lanes(group / 2 - planes::kWidth * kLast);
    const __mmask64 bytes = first_bytes(group - 64 * kLast);
    Planes x[Registers];
    for (unsigned r = 0; r < Registers; ++r) x[r] = planes::load(states + r * planes::kWidth);
    for (unsigned index = 0; index < tables.channels(); ++index) {
        const Channel& c = tables.channel(index);
        DecodeRow<Thresholds> row{{}, {}, Words64(c.frequency), Words64(c.start)};
        for (unsigned k = 0; k < Thresholds; ++k) {
            row.first[k] = _mm512_set1_epi16(static_cast<short>(c.first[k]));
            row.second[k] = _mm512_load_si512(c.second[k]);
        }
        const std::size_t count = steps.of(index);
        for (std::size_t groups = count / group; groups > 0; --groups) {
            if (!words.ready()) return false;
            const std::uint8_t* next = words.next;
            if (kLast > 0) _mm512_storeu_si512(symbols, decode_group<false>(row, x[0], ~__mmask32{0}, next));
            _mm512_mask_storeu_epi8(symbols + 64 * kLast, bytes, decode_group<false>(row, x[kLast], others, next));
            words.next = next;
            symbols += group;
        }
        if (!words.ready()) return false;
        const std::size_t rest = count % group;
        for (unsigned r = 0; r < Registers && 64 * r < rest; ++r) {
            const __mmask32 active = planes::first_lanes((rest - 64 * r + 1) / 2);
            const __m512i found = decode_group<true>(row, x[r], active, words.next);
            _mm512_mask_storeu_epi8(symbols + 64 * r, first_bytes(rest - 64 * r), found);
        }
        symbols += rest;
    }
    for (unsigned r = 0; r < Registers; ++r) planes::store(states + r * planes::kWidth, x[r]);
    return true;
}

template <unsigned Registers>
PERCODEC_AVX512 std::uint8_t* encode(const PairTables& tables, const std::uint8_t* symbols, const PairSteps& steps,
                                     unsigned lanes, std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next,
                                     std::uint8_t* highest) noexcept {
    constexpr unsigned kLast = Registers - 1;
    const std::size_t group = 2 * std::size_t{lanes};
    const __mmask32 others = planes::first_lanes(group / 2 - planes::kWidth * kLast);
    const __mmask64 bytes = first_bytes(group - 64 * kLast);
    Planes x[Registers];
    for (unsigned r = 0; r < Registers; ++r) x[r] = planes::load(states + r * planes::kWidth);
    __m512i most = _mm512_setzero_si512();
    for (unsigned index = tables.channels(); index-- > 0;) {
        const std::size_t count = steps.of(index), rest = count % group;
        const Channel& c = tables.channel(index);
        const EncodeRow row{Words64(c.frequency), Words64(c.start), Words64(c.reciprocal_low),
                            Words64(c.reciprocal_high)};
        const std::uint8_t* s = symbols + std::size_t{index} * steps.plane + (count - rest);
        if (static_cast<std::size_t>(next - begin) < rest + 1) return nullptr;
        for (unsigned r = Registers; r-- > 0;) {
            if (rest <= 64 * r) continue;
            const __m512i loaded = _mm512_maskz_loadu_epi8(first_bytes(rest - 64 * r), s + 64 * r);
            most = _mm512_max_epu8(most, loaded);
            encode_group<true>(row, loaded, x[r], planes::first_lanes((rest - 64 * r + 1) / 2), next);
        }
        for (std::size_t groups = count / group; groups > 0; --groups) {
            s -= group;
            if (static_cast<std::size_t>(next - begin) < group) return nullptr;
            const __m512i behind = _mm512_maskz_loadu_epi8(bytes, s + 64 * kLast);
            most = _mm512_max_epu8(most, behind);
            encode_group<false>(row, behind, x[kLast], others, next);
            if (kLast == 0) continue;
            const __m512i ahead = _mm512_loadu_si512(s);
            most = _mm512_max_epu8(most, ahead);
            encode_group<false>(row, ahead, x[0], ~__mmask32{0}, next);
        }
    }
    for (unsigned r = 0; r < Registers; ++r) planes::store(states + r * planes::kWidth, x[r]);
    *highest = highest_byte(most);
    return next;
}

template <unsigned Thresholds>
bool decode_lanes(const PairTables& tables, const PairSteps& steps, unsigned lanes, std::uint32_t* states,
                  WordReader& words, std::uint8_t* symbols) noexcept {
    return (lanes > planes::kWidth ? decode<2, Thresholds> : decode<1, Thresholds>)(tables, steps, lanes, states, words,
                                                                                    symbols);
}

}  // namespace

std::uint8_t* encode_pairs_avx512(const PairTables& tables, const std::uint8_t* symbols, const PairSteps& steps,
                                  unsigned lanes, std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next,
                                  std::uint8_t* highest) noexcept {
    return (lanes > planes::kWidth ? encode<2> : encode<1>)(tables, symbols, steps, lanes, states, begin, next,
                                                            highest);
}

bool decode_pairs_avx512(const PairTables& tables, const PairSteps& steps, unsigned lanes, std::uint32_t* states,
                         WordReader& words, std::uint8_t* symbols) noexcept {
    return (tables.levels() <= 6 ? decode_lanes<5> : decode_lanes<7>)(tables, steps, lanes, states, words, symbols);
}

}  // namespace percodec

#endif
