// Profiles 1 and 2 with AVX-512: sixteen lanes in a register, up to four registers, all of a channel's contexts in
// permutes of 32, 64 or 96 entries.
#if defined(__x86_64__)

#include "avx512.hpp"
#include "kernels.hpp"

namespace percodec {
namespace {

constexpr unsigned kWidth = 16;
constexpr std::size_t kBlock = ContextRows::kBlock;  // a multiple of every lane count that comes here

// As in kernel_avx512.cpp, with `index` = context * levels + level instead of the level.
template <unsigned Entries>
PERCODEC_AVX512 inline __m512i encode_group(const Numbers<Entries>& reciprocals, const Numbers<Entries>& rest,
                                            __m128i index8, __m512i x, __mmask16 active, std::uint8_t*& next) noexcept {
    const __m512i index = _mm512_cvtepu8_epi32(index8);
    const __m512i reciprocal = reciprocals.at(index), packed = rest.at(index);
    const __m512i complement = _mm512_and_si512(packed, _mm512_set1_epi32(0xFFF));
    const __m512i bias = _mm512_and_si512(_mm512_srli_epi32(packed, 12), _mm512_set1_epi32(0x1FFF));
    const __m512i shift = _mm512_srli_epi32(packed, 25);
    const __m512i frequency = _mm512_sub_epi32(_mm512_set1_epi32(static_cast<int>(kProbabilityScale)), complement);
    const __mmask16 due = _mm512_mask_cmpge_epu32_mask(active, x, _mm512_slli_epi32(frequency, 19));
    const __m256i words = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(due, x));
    const unsigned count = static_cast<unsigned>(_mm_popcnt_u32(due));
    next -= 2 * count;
    _mm256_mask_storeu_epi16(next, static_cast<__mmask16>((1u << count) - 1u), words);
    const __m512i y = _mm512_mask_srli_epi32(x, due, x, 16);

    const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(y, reciprocal), 32);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(y, 32), _mm512_srli_epi64(reciprocal, 32));
    const __m512i quotient = _mm512_srlv_epi32(_mm512_mask_mov_epi32(even, 0xAAAA, odd), shift);
    const __m512i grown = _mm512_mullo_epi32(quotient, complement);
    return _mm512_mask_add_epi32(x, active, _mm512_add_epi32(y, bias), grown);
}

template <unsigned Registers, unsigned Entries>
PERCODEC_AVX512 std::uint8_t* encode(const Tables& tables, const std::uint8_t* rows, const std::uint8_t* symbols,
                                     unsigned channels, std::size_t height, std::size_t width, unsigned lanes,
                                     std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next) noexcept {
    __m512i x[Registers];
    for (unsigned r = 0; r < Registers; ++r) x[r] = _mm512_loadu_si512(states + r * kWidth);

    for (unsigned c = channels; c-- > 0;) {
        const Tables::Wide& v = *tables.wide(c);
        const Numbers<Entries> reciprocals(v.reciprocal), rest(v.packed);
        for (std::size_t y = height; y-- > 0;) {
            const std::size_t line = (std::size_t{c} * height + y) * width;
            if (static_cast<std::size_t>(next - begin) < 2 * width) return nullptr;
            for (std::size_t group = (width + lanes - 1) / lanes; group-- > 0;) {
                const std::size_t at = group * lanes, many = width - at < lanes ? width - at : lanes;
                for (unsigned r = Registers; r-- > 0;) {
                    if (many <= r * kWidth) continue;
                    const __mmask16 active = first_of_16(many - r * kWidth);
                    const std::size_t place = line + at + r * kWidth;
                    const __m128i index = _mm_add_epi8(_mm_maskz_loadu_epi8(active, symbols + place),
                                                       _mm_maskz_loadu_epi8(active, rows + place));
                    x[r] = encode_group<Entries>(reciprocals, rest, index, x[r], active, next);
                }
            }
        }
    }
    for (unsigned r = 0; r < Registers; ++r) _mm512_storeu_si512(states + r * kWidth, x[r]);
    return next;
}

// Frequency and start of each level in every context: what the state needs is chosen by the comparisons themselves, in
// three steps, instead of by the level they add up to.
template <unsigned Levels>
struct DecodeRow {
    static_assert(Levels == 6 || Levels == 8);
    __m512i threshold[Levels - 1], frequency_start[Levels];
};

template <unsigned Levels>
PERCODEC_AVX512 inline __m512i decode_group(const DecodeRow<Levels>& row, __m128i context8, __m512i x, __mmask16 active,
                                            const std::uint8_t*& next, __m128i* symbols) noexcept {
    const __m512i context = _mm512_cvtepu8_epi32(context8);
    const __m512i slot = _mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(kProbabilityScale - 1)));
    const __m512i one = _mm512_set1_epi32(1);
    __mmask16 above[Levels - 1];
    __m512i level = _mm512_setzero_si512();
    for (unsigned k = 0; k < Levels - 1; ++k) {
        above[k] = _mm512_cmpge_epu32_mask(slot, _mm512_permutexvar_epi32(context, row.threshold[k]));
        level = _mm512_mask_add_epi32(level, above[k], level, one);
    }
    const auto at = [&](unsigned k) __attribute__((always_inline, target("avx512f"))) {
        return _mm512_permutexvar_epi32(context, row.frequency_start[k]);
    };
    __m512i found = _mm512_mask_mov_epi32(_mm512_mask_mov_epi32(at(0), above[0], at(1)), above[1],
                                          _mm512_mask_mov_epi32(at(2), above[2], at(3)));
    __m512i upper = _mm512_mask_mov_epi32(at(4), above[4], at(5));
    if constexpr (Levels == 8) {
        upper = _mm512_mask_mov_epi32(upper, above[5], _mm512_mask_mov_epi32(at(6), above[6], at(7)));
    }
    found = _mm512_mask_mov_epi32(found, above[3], upper);
    const __m512i frequency = _mm512_and_si512(found, _mm512_set1_epi32(0xFFFF));
    const __m512i offset = _mm512_sub_epi32(slot, _mm512_srli_epi32(found, 16));
    const __m512i stepped =
        _mm512_add_epi32(_mm512_mullo_epi32(frequency, _mm512_srli_epi32(x, kPrecisionBits)), offset);
    const __mmask16 due = _mm512_mask_cmplt_epu32_mask(active, stepped, _mm512_set1_epi32(static_cast<int>(kStateLow)));
    const __m512i words =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(next)));  // 32 bytes: see ready()
    const __m512i spread = _mm512_maskz_expand_epi32(due, words);
    next += 2 * static_cast<unsigned>(_mm_popcnt_u32(due));
    *symbols = _mm512_cvtepi32_epi8(level);
    const __m512i refilled = _mm512_mask_or_epi32(stepped, due, _mm512_slli_epi32(stepped, 16), spread);
    return _mm512_mask_mov_epi32(x, active, refilled);
}

template <unsigned Registers, unsigned Levels>
PERCODEC_AVX512 bool decode(const Tables& tables, const Contexts& contexts, unsigned channels, std::size_t height,
                            std::size_t width, unsigned lanes, std::uint32_t* states, WordReader& words,
                            std::uint8_t* symbols) noexcept {
    __m512i x[Registers];
    for (unsigned r = 0; r < Registers; ++r) x[r] = _mm512_loadu_si512(states + r * kWidth);
    alignas(64) std::uint8_t rows[kBlock];
    __m128i found;

    for (unsigned c = 0; c < channels; ++c) {
        const Tables::Wide& v = *tables.wide(c);
        DecodeRow<Levels> row;
        for (unsigned k = 0; k < Levels - 1; ++k) row.threshold[k] = _mm512_load_si512(v.threshold[k]);
        for (unsigned k = 0; k < Levels; ++k) row.frequency_start[k] = _mm512_load_si512(v.frequency_start[k]);
        const ContextRows before(contexts, c, symbols, height, width, Kernel::avx512, 1);
        for (std::size_t y = 0; y < height; ++y) {
            std::uint8_t* line = symbols + (std::size_t{c} * height + y) * width;
            for (std::size_t first = 0; first < width; first += kBlock) {
                const std::size_t all = width - first < kBlock ? width - first : kBlock;
                before.block(y, first, all, rows);
                for (std::size_t at = 0; at < all; at += lanes) {
                    const std::size_t many = all - at < lanes ? all - at : lanes;
                    if (!words.ready()) return false;
                    const std::uint8_t* next = words.next;
                    for (unsigned r = 0; r < Registers; ++r) {
                        if (many <= r * kWidth) continue;
                        const __mmask16 active = first_of_16(many - r * kWidth);
                        const std::size_t place = at + r * kWidth;
                        x[r] = decode_group<Levels>(row, _mm_maskz_loadu_epi8(active, rows + place), x[r], active, next,
                                                    &found);
                        _mm_mask_storeu_epi8(line + first + place, active, found);
                    }
                    words.next = next;
                }
            }
        }
    }
    for (unsigned r = 0; r < Registers; ++r) _mm512_storeu_si512(states + r * kWidth, x[r]);
    return true;
}

template <unsigned Registers>
auto encode_entries(unsigned entries) noexcept {
    return entries <= 32 ? encode<Registers, 32> : entries <= 64 ? encode<Registers, 64> : encode<Registers, 96>;
}

template <unsigned Registers>
PERCODEC_AVX512 bool decode_levels(const Tables& tables, const Contexts& contexts, unsigned channels,
                                   std::size_t height, std::size_t width, unsigned lanes, std::uint32_t* states,
                                   WordReader& words, std::uint8_t* symbols) noexcept {
    if (tables.levels() <= 6)
        return decode<Registers, 6>(tables, contexts, channels, height, width, lanes, states, words, symbols);
    return decode<Registers, 8>(tables, contexts, channels, height, width, lanes, states, words, symbols);
}

}  // namespace

std::uint8_t* encode_contexts_avx512(const Tables& t, unsigned contexts, const std::uint8_t* rows,
                                     const std::uint8_t* symbols, unsigned channels, std::size_t height,
                                     std::size_t width, unsigned lanes, std::uint32_t* states, std::uint8_t* begin,
                                     std::uint8_t* next) noexcept {
    const unsigned entries = contexts * t.levels();
    const auto encode = lanes <= 16   ? encode_entries<1>(entries)
                        : lanes == 32 ? encode_entries<2>(entries)
                                      : encode_entries<4>(entries);
    return encode(t, rows, symbols, channels, height, width, lanes, states, begin, next);
}

bool decode_contexts_avx512(const Tables& t, const Contexts& k, unsigned channels, std::size_t height,
                            std::size_t width, unsigned lanes, std::uint32_t* states, WordReader& words,
                            std::uint8_t* symbols) noexcept {
    switch (lanes) {
        case 8:
        case 16:
            return decode_levels<1>(t, k, channels, height, width, lanes, states, words, symbols);
        case 32:
            return decode_levels<2>(t, k, channels, height, width, lanes, states, words, symbols);
        default:
            return decode_levels<4>(t, k, channels, height, width, lanes, states, words, symbols);
    }
}

// `rows` times the number of levels, kWideEntries costs from `cost` on.
PERCODEC_AVX512 std::uint32_t cost_avx512(const std::uint16_t* cost, const std::uint8_t* rows,
                                          const std::uint8_t* symbols, std::size_t count) noexcept {
    static_assert(kWideEntries == 96);
    const __m512i low = _mm512_loadu_si512(cost), high = _mm512_loadu_si512(cost + 32);
    const __m512i rest = _mm512_loadu_si512(cost + 64);
    __m512i sum = _mm512_setzero_si512();
    for (std::size_t i = 0; i < count; i += 32) {
        const auto there = static_cast<__mmask32>(count - i >= 32 ? ~0u : (1u << (count - i)) - 1u);
        const __m256i index8 =
            _mm256_add_epi8(_mm256_maskz_loadu_epi8(there, rows + i), _mm256_maskz_loadu_epi8(there, symbols + i));
        const __m512i index = _mm512_cvtepu8_epi16(index8);
        __m512i found = _mm512_maskz_permutex2var_epi16(there, low, index, high);
        const __mmask32 above = _mm512_mask_test_epi16_mask(there, index, _mm512_set1_epi16(64));
        found = _mm512_mask_permutexvar_epi16(found, above, index, rest);
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(found, _mm512_set1_epi16(1)));
    }
    return static_cast<std::uint32_t>(_mm512_reduce_add_epi32(sum));
}

}  // namespace percodec

#endif
