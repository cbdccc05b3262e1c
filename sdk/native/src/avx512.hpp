// What all AVX-512 kernels begin with: what a function may use, masks of sixteen lanes, tables in registers, division.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"  // false alarms inside GCC's own intrinsics
#endif

// Ice Lake, Zen 4 and later: see kernel_supported().
#define PERCODEC_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,bmi2,popcnt")))

namespace percodec {

PERCODEC_AVX512 inline __mmask16 first_of_16(std::size_t count) noexcept {
    return static_cast<__mmask16>(count >= 16 ? 0xFFFFu : (1u << count) - 1u);
}

PERCODEC_AVX512 inline std::uint8_t highest_byte(__m512i bytes) noexcept {
    alignas(64) std::uint8_t each[64];
    _mm512_store_si512(each, bytes);
    std::uint8_t highest = 0;
    for (const std::uint8_t one : each) highest = one > highest ? one : highest;
    return highest;
}

// 64 words by their six lowest bits.
struct Words64 {
    __m512i below, above;
    PERCODEC_AVX512 explicit Words64(const std::uint16_t* table) noexcept
        : below(_mm512_load_si512(table)), above(_mm512_load_si512(table + 32)) {}
    PERCODEC_AVX512 __m512i at(__m512i index) const noexcept { return _mm512_permutex2var_epi16(below, index, above); }
};

// 32, 64 or 96 numbers of 32 bits, by the lowest bits of as many.
template <unsigned Count>
struct Numbers {
    static_assert(Count == 32 || Count == 64 || Count == 96);
    __m512i part[Count / 16];
    PERCODEC_AVX512 explicit Numbers(const void* table) noexcept {
        for (unsigned k = 0; k < Count / 16; ++k)
            part[k] = _mm512_load_si512(static_cast<const std::uint32_t*>(table) + 16 * k);
    }
    PERCODEC_AVX512 __m512i at(__m512i index) const noexcept {
        __m512i found = _mm512_permutex2var_epi32(part[0], index, part[1]);
        for (unsigned k = 1; k < Count / 32; ++k) {
            const __m512i above = _mm512_permutex2var_epi32(part[2 * k], index, part[2 * k + 1]);
            found =
                _mm512_mask_mov_epi32(found, _mm512_test_epi32_mask(index, _mm512_set1_epi32(32 << (k - 1))), above);
        }
        return found;
    }
};

// x / frequency or one less, for x < 2^32 below frequency << 19: with every rounding towards zero the estimate is at
// most 3 * 2^-23 of its less than 2^19 too low, and never too high. `inverse` is 1 / frequency, rounded down.
PERCODEC_AVX512 inline __m512i estimate(__m512i x, __m512 inverse) noexcept {
    constexpr int kDown = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
    return _mm512_cvttps_epi32(_mm512_mul_round_ps(_mm512_cvt_roundepu32_ps(x, kDown), inverse, kDown));
}

}  // namespace percodec
