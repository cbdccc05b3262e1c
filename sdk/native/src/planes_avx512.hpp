// 32 states of 32 bits as two planes of 16: a register then holds 32 lanes, and a renormalisation moves whole words.
#pragma once

#include <cstddef>
#include <cstdint>

#include "avx512.hpp"

namespace percodec::planes {

constexpr unsigned kWidth = 32;

PERCODEC_AVX512 inline __mmask32 first_lanes(std::size_t count) noexcept {
    return count >= kWidth ? ~__mmask32{0} : (__mmask32{1} << count) - 1u;
}

struct Planes {
    __m512i low, high;  // state = high << 16 | low
};

PERCODEC_AVX512 inline Planes load(const std::uint32_t* states) noexcept {
    const __m512i a = _mm512_loadu_si512(states), b = _mm512_loadu_si512(states + 16);
    const __m512i low =
        _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(a)), _mm512_cvtepi32_epi16(b), 1);
    const __m256i up_a = _mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16));
    return {low, _mm512_inserti64x4(_mm512_castsi256_si512(up_a), _mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16)), 1)};
}

PERCODEC_AVX512 inline void store(std::uint32_t* states, const Planes& x) noexcept {
    const __m512i a = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(x.high));
    const __m512i b = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(x.high, 1));
    const __m512i low_a = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(x.low));
    const __m512i low_b = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(x.low, 1));
    _mm512_storeu_si512(states, _mm512_or_si512(_mm512_slli_epi32(a, 16), low_a));
    _mm512_storeu_si512(states + 16, _mm512_or_si512(_mm512_slli_epi32(b, 16), low_b));
}

// The low words of the lanes in `due` leave, lane 0's to the lowest address.
PERCODEC_AVX512 inline Planes send(const Planes& x, __mmask32 due, std::uint8_t*& next) noexcept {
    const unsigned count = static_cast<unsigned>(_mm_popcnt_u32(due));
    next -= 2 * count;
    _mm512_mask_storeu_epi16(next, _bzhi_u32(~0u, count), _mm512_maskz_compress_epi16(due, x.low));
    return {_mm512_mask_mov_epi16(x.low, due, x.high), _mm512_mask_mov_epi16(x.high, due, _mm512_setzero_si512())};
}

// Words from `next` become the low words of the lanes in `due`. Reads 64 bytes at `next`: see WordReader::ready().
PERCODEC_AVX512 inline Planes fetch(const Planes& x, __mmask32 due, const std::uint8_t*& next) noexcept {
    const __m512i low = _mm512_mask_expand_epi16(x.low, due, _mm512_loadu_si512(next));
    next += 2 * static_cast<unsigned>(_mm_popcnt_u32(due));
    return {low, _mm512_mask_mov_epi16(x.high, due, x.low)};
}

}  // namespace percodec::planes
