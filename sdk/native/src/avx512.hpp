// What all AVX-512 kernels begin with: what a function may use, and masks of sixteen lanes.
#pragma once

#include <immintrin.h>

#include <cstddef>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"  // false alarms inside GCC's own intrinsics
#endif

#define PERCODEC_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,bmi2,popcnt")))
#define PERCODEC_WIDE __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi2,bmi2,popcnt")))

namespace percodec {

PERCODEC_AVX512 inline __mmask16 first_of_16(std::size_t count) noexcept {
    return static_cast<__mmask16>(count >= 16 ? 0xFFFFu : (1u << count) - 1u);
}

}  // namespace percodec
