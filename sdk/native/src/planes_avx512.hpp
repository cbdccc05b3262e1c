// 32 states of 32 bits as two planes of 16: a register then holds 32 lanes, and a renormalisation moves whole words.
// With AVX-512 of Ice Lake, Zen 4 and later.
#pragma once

#include <cstddef>
#include <cstdint>

#include "avx512.hpp"

namespace percodec::planes {

constexpr unsigned kWidth = 32;

PERCODEC_WIDE inline __mmask32 first_lanes(std::size_t count) noexcept {
    return count >= kWidth ? ~__mmask32{0} : (__mmask32{1} << count) - 1u;
}

struct Planes {
    __m512i low, high;  // state = high << 16 | low
};

PERCODEC_WIDE inline Planes load(const std::uint32_t* states) noexcept {
    const __m512i a = _mm512_loadu_si512(states), b = _mm512_loadu_si512(states + 16);
    const __m512i low =
        _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(a)), _mm512_cvtepi32_epi16(b), 1);
    const __m256i up_a = _mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16));
    return {low, _mm512_inserti64x4(_mm512_castsi256_si512(up_a), _mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16)), 1)};
}

PERCODEC_WIDE inline void store(std::uint32_t* states, const Planes& x) noexcept {
    const __m512i a = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(x.high));
    const __m512i b = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(x.high, 1));
    const __m512i low_a = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(x.low));
    const __m512i low_b = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(x.low, 1));
    _mm512_storeu_si512(states, _mm512_or_si512(_mm512_slli_epi32(a, 16), low_a));
    _mm512_storeu_si512(states + 16, _mm512_or_si512(_mm512_slli_epi32(b, 16), low_b));
}

// Of two registers the even words, or the odd words, side by side: numbers of 32 bits from their halves, and back.
PERCODEC_WIDE inline __m512i even_words(__m512i low, __m512i high) noexcept {
    return _mm512_ternarylogic_epi32(_mm512_set1_epi32(0xFFFF), low, _mm512_slli_epi32(high, 16), 0xCA);
}
PERCODEC_WIDE inline __m512i odd_words(__m512i low, __m512i high) noexcept {
    return _mm512_ternarylogic_epi32(_mm512_set1_epi32(0xFFFF), _mm512_srli_epi32(low, 16), high, 0xCA);
}

// x / frequency or one less, for x < 2^32 below frequency << 19: with every rounding towards zero the estimate is at
// most 3 * 2^-23 of its less than 2^19 too low, and never too high. `inverse` is 1 / frequency, rounded down.
PERCODEC_AVX512 inline __m512i estimate(__m512i x, __m512 inverse) noexcept {
    constexpr int kDown = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
    return _mm512_cvttps_epi32(_mm512_mul_round_ps(_mm512_cvt_roundepu32_ps(x, kDown), inverse, kDown));
}

// States below frequency << (32 - Bits), their low words sent where due: x / frequency << Bits, + x % frequency +
// start. `even`, `odd`: inverses of the frequencies of the even and the odd lanes.
template <unsigned Bits>
PERCODEC_WIDE inline Planes grow(const Planes& x, __m512i frequency, __m512i start, __m512 even, __m512 odd) noexcept {
    const __m512i q_even = estimate(even_words(x.low, x.high), even);
    const __m512i q_odd = estimate(odd_words(x.low, x.high), odd);
    const __m512i q_low = even_words(q_even, q_odd), q_high = odd_words(q_even, q_odd);
    // x % frequency, or that and one frequency more, fits 16 bits: so 16 bits are enough to find it.
    const __m512i left = _mm512_sub_epi16(x.low, _mm512_mullo_epi16(q_low, frequency));
    const __m512i times = _mm512_slli_epi16(q_low, Bits);
    const __m512i whole = _mm512_set1_epi16(static_cast<short>(1u << Bits));
    const __m512i last = _mm512_set1_epi16(static_cast<short>(65536u - (1u << Bits)));
    const __mmask32 full = _mm512_cmpge_epu16_mask(times, last);
    const __mmask32 over = _mm512_cmpge_epu16_mask(left, frequency);
    const __mmask32 carry = _mm512_mask_cmpge_epu16_mask(full, left, frequency);  // one quotient more passes 16 bits
    const __m512i low = _mm512_add_epi16(_mm512_add_epi16(times, start), left);
    const __m512i high = _mm512_shldi_epi16(q_high, q_low, Bits);
    return {_mm512_mask_add_epi16(low, over, low, _mm512_sub_epi16(whole, frequency)),
            _mm512_mask_add_epi16(high, carry, high, _mm512_set1_epi16(1))};
}

// The low words of the lanes in `due` leave, lane 0's to the lowest address.
PERCODEC_WIDE inline Planes send(const Planes& x, __mmask32 due, std::uint8_t*& next) noexcept {
    const unsigned count = static_cast<unsigned>(_mm_popcnt_u32(due));
    next -= 2 * count;
    _mm512_mask_storeu_epi16(next, _bzhi_u32(~0u, count), _mm512_maskz_compress_epi16(due, x.low));
    return {_mm512_mask_mov_epi16(x.low, due, x.high), _mm512_mask_mov_epi16(x.high, due, _mm512_setzero_si512())};
}

// Words from `next` become the low words of the lanes in `due`. Reads 64 bytes at `next`: see WordReader::ready().
PERCODEC_WIDE inline Planes fetch(const Planes& x, __mmask32 due, const std::uint8_t*& next) noexcept {
    const __m512i low = _mm512_mask_expand_epi16(x.low, due, _mm512_loadu_si512(next));
    next += 2 * static_cast<unsigned>(_mm_popcnt_u32(due));
    return {low, _mm512_mask_mov_epi16(x.high, due, x.low)};
}

}  // namespace percodec::planes
