// AVX2 kernels: eight lanes in a register, one to eight registers. Lane counts are multiples of eight; the last,
// partial group of a channel is coded one symbol at a time.
#if defined(__x86_64__)

#include <immintrin.h>

#include "kernels.hpp"
#include "shuffles.hpp"

#define PERCODEC_AVX2 __attribute__((target("avx2,popcnt")))

namespace percodec {
namespace {

constexpr unsigned kWidth = kAvx2Lanes;

PERCODEC_AVX2 inline __m128i shuffle(const Shuffles& table, unsigned mask) noexcept {
    return _mm_load_si128(reinterpret_cast<const __m128i*>(table[mask].data()));
}

PERCODEC_AVX2 inline __m256i load(const std::uint32_t* p) noexcept {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

PERCODEC_AVX2 inline void store(std::uint32_t* p, __m256i x) noexcept {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
}

struct EncodeRow {
    __m256i reciprocal, shift, bias, complement;
};

// Stores 16 bytes below `next`, of which those of the lanes that are due are kept.
PERCODEC_AVX2 inline __m256i encode_group(const EncodeRow& row, const std::uint8_t* symbols, __m256i x,
                                          std::uint8_t*& next) noexcept {
    const __m256i level = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(symbols)));
    const __m256i complement = _mm256_permutevar8x32_epi32(row.complement, level);
    const __m256i frequency = _mm256_sub_epi32(_mm256_set1_epi32(static_cast<int>(kProbabilityScale)), complement);
    const __m256i stays = _mm256_cmpgt_epi32(_mm256_slli_epi32(frequency, 19), x);
    const unsigned due = ~static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(stays))) & 0xFFu;
    const __m256i low = _mm256_and_si256(x, _mm256_set1_epi32(0xFFFF));
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(next - 16), _mm_shuffle_epi8(words, shuffle(kCompress, due)));
    next -= 2 * static_cast<unsigned>(_mm_popcnt_u32(due));
    const __m256i y = _mm256_blendv_epi8(_mm256_srli_epi32(x, 16), x, stays);

    const __m256i reciprocal = _mm256_permutevar8x32_epi32(row.reciprocal, level);
    const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(y, reciprocal), 32);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(y, 32), _mm256_srli_epi64(reciprocal, 32));
    const __m256i high = _mm256_blend_epi32(even, odd, 0xAA);
    const __m256i quotient = _mm256_srlv_epi32(high, _mm256_permutevar8x32_epi32(row.shift, level));
    const __m256i grown = _mm256_mullo_epi32(quotient, complement);
    return _mm256_add_epi32(_mm256_add_epi32(y, _mm256_permutevar8x32_epi32(row.bias, level)), grown);
}

template <unsigned Registers>
PERCODEC_AVX2 std::uint8_t* encode(const Tables& tables, const std::uint8_t* symbols, std::size_t plane,
                                   std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next) noexcept {
    constexpr std::size_t lanes = Registers * kWidth;
    const std::size_t rest = plane % lanes;
    const unsigned mask = tables.encode_mask();

    for (unsigned channel = tables.channels(); channel-- > 0;) {
        const Tables::Vector& v = *tables.vector(channel);
        const EncodeRow row{load(v.reciprocal), load(v.shift), load(v.bias), load(v.complement)};
        const Tables::Encode* entries = tables.encode(channel);
        const std::uint8_t* s = symbols + std::size_t{channel} * plane + (plane - rest);
        if (static_cast<std::size_t>(next - begin) < 2 * rest) return nullptr;
        for (std::size_t lane = rest; lane-- > 0;) {
            states[lane] = encode_symbol(entries[s[lane] & mask], states[lane], next);
        }
        __m256i x[Registers];
        for (unsigned r = 0; r < Registers; ++r) x[r] = load(states + r * kWidth);
        for (std::size_t groups = plane / lanes; groups > 0; --groups) {
            s -= lanes;
            if (static_cast<std::size_t>(next - begin) < 2 * lanes) return nullptr;
            for (unsigned r = Registers; r-- > 0;) x[r] = encode_group(row, s + r * kWidth, x[r], next);
        }
        for (unsigned r = 0; r < Registers; ++r) store(states + r * kWidth, x[r]);
    }
    return next;
}

template <unsigned Thresholds>
struct DecodeRow {
    __m256i below[Thresholds];  // a slot greater than below[k] belongs to level k + 1 or higher
    __m256i frequency_start;
};

template <unsigned Thresholds>
PERCODEC_AVX2 inline __m256i decode_group(const DecodeRow<Thresholds>& row, __m256i x, const std::uint8_t*& next,
                                          std::uint8_t* symbols) noexcept {
    const __m256i slot = _mm256_and_si256(x, _mm256_set1_epi32(static_cast<int>(kProbabilityScale - 1)));
    __m256i level = _mm256_setzero_si256();
    for (unsigned k = 0; k < Thresholds; ++k) {
        level = _mm256_sub_epi32(level, _mm256_cmpgt_epi32(slot, row.below[k]));
    }
    const __m128i pairs = _mm_packus_epi32(_mm256_castsi256_si128(level), _mm256_extracti128_si256(level, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(symbols), _mm_packus_epi16(pairs, pairs));
    const __m256i found = _mm256_permutevar8x32_epi32(row.frequency_start, level);
    const __m256i frequency = _mm256_and_si256(found, _mm256_set1_epi32(0xFFFF));
    const __m256i offset = _mm256_sub_epi32(slot, _mm256_srli_epi32(found, 16));
    const __m256i stepped =
        _mm256_add_epi32(_mm256_mullo_epi32(frequency, _mm256_srli_epi32(x, kPrecisionBits)), offset);
    const __m256i short_of = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(kStateLow)), stepped);
    const unsigned due = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(short_of)));
    const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(next));  // 16 bytes: see ready()
    const __m256i spread = _mm256_cvtepu16_epi32(_mm_shuffle_epi8(words, shuffle(kExpand, due)));
    next += 2 * static_cast<unsigned>(_mm_popcnt_u32(due));
    return _mm256_blendv_epi8(stepped, _mm256_or_si256(_mm256_slli_epi32(stepped, 16), spread), short_of);
}

template <unsigned Registers, unsigned Thresholds>
PERCODEC_AVX2 bool decode(const Tables& tables, std::size_t plane, std::uint32_t* states, WordReader& words,
                          std::uint8_t* symbols) noexcept {
    constexpr std::size_t lanes = Registers * kWidth;
    const std::size_t rest = plane % lanes;

    for (unsigned channel = 0; channel < tables.channels(); ++channel) {
        const Tables::Vector& v = *tables.vector(channel);
        DecodeRow<Thresholds> row;
        for (unsigned k = 0; k < Thresholds; ++k) {
            row.below[k] = _mm256_set1_epi32(static_cast<int>(v.threshold[k]) - 1);
        }
        row.frequency_start = load(v.frequency_start);
        __m256i x[Registers];
        for (unsigned r = 0; r < Registers; ++r) x[r] = load(states + r * kWidth);
        for (std::size_t groups = plane / lanes; groups > 0; --groups) {
            if (!words.ready()) return false;
            const std::uint8_t* next = words.next;
            for (unsigned r = 0; r < Registers; ++r) {
                x[r] = decode_group<Thresholds>(row, x[r], next, symbols + r * kWidth);
            }
            words.next = next;
            symbols += lanes;
        }
        for (unsigned r = 0; r < Registers; ++r) store(states + r * kWidth, x[r]);
        if (!words.ready()) return false;
        const std::uint32_t* slots = tables.decode(channel);
        for (std::size_t lane = 0; lane < rest; ++lane) symbols[lane] = decode_symbol(slots, states[lane], words.next);
        symbols += rest;
    }
    return true;
}

template <unsigned Registers>
PERCODEC_AVX2 bool decode_levels(const Tables& tables, std::size_t plane, std::uint32_t* states, WordReader& words,
                                 std::uint8_t* symbols) noexcept {
    if (tables.levels() <= 6) return decode<Registers, 5>(tables, plane, states, words, symbols);
    return decode<Registers, 7>(tables, plane, states, words, symbols);
}

}  // namespace

std::uint8_t* encode_avx2(const Tables& tables, const std::uint8_t* symbols, std::size_t plane, unsigned lanes,
                          std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next) noexcept {
    static constexpr decltype(&encode<1>) kByRegisters[] = {&encode<1>, &encode<2>, &encode<3>, &encode<4>,
                                                            &encode<5>, &encode<6>, &encode<7>, &encode<8>};
    return kByRegisters[lanes / kWidth - 1](tables, symbols, plane, states, begin, next);
}

bool decode_avx2(const Tables& tables, std::size_t plane, unsigned lanes, std::uint32_t* states, WordReader& words,
                 std::uint8_t* symbols) noexcept {
    static constexpr decltype(&decode_levels<1>) kByRegisters[] = {
        &decode_levels<1>, &decode_levels<2>, &decode_levels<3>, &decode_levels<4>,
        &decode_levels<5>, &decode_levels<6>, &decode_levels<7>, &decode_levels<8>};
    return kByRegisters[lanes / kWidth - 1](tables, plane, states, words, symbols);
}

}  // namespace percodec

#endif
