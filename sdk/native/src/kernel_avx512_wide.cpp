// Profile 0, 64 lanes, with AVX-512 of Ice Lake, Zen 4 and later. States are kept as two planes of 16 bits: a register
// then holds 32 lanes, and a renormalisation moves whole words. Fewer lanes wait for themselves: kernel_avx512.cpp is
// faster.
#if defined(__x86_64__)

#include <immintrin.h>

#include "kernels.hpp"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"  // false alarms inside GCC's own intrinsics
#endif

#define PERCODEC_WIDE __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi2,bmi2,popcnt")))

namespace percodec {
namespace {

constexpr unsigned kWidth = 32;

PERCODEC_WIDE inline __mmask32 first_lanes(std::size_t count) noexcept {
    return count >= kWidth ? ~__mmask32{0} : (__mmask32{1} << count) - 1u;
}

struct Planes {
    __m512i low, high;  // state = high << 16 | low
};

PERCODEC_WIDE inline Planes load_planes(const std::uint32_t* states) noexcept {
    const __m512i a = _mm512_loadu_si512(states), b = _mm512_loadu_si512(states + 16);
    const __m512i low =
        _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(a)), _mm512_cvtepi32_epi16(b), 1);
    const __m256i up_a = _mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16));
    return {low, _mm512_inserti64x4(_mm512_castsi256_si512(up_a), _mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16)), 1)};
}

PERCODEC_WIDE inline void store_planes(std::uint32_t* states, const Planes& x) noexcept {
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

// x / frequency or one less, for x < frequency << 19: with every rounding towards zero the estimate is at most 3 *
// 2^-23 of its less than 2^19 too low, and never too high.
PERCODEC_WIDE inline __m512i estimate(__m512i x, __m512 inverse) noexcept {
    constexpr int kDown = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
    return _mm512_cvttps_epi32(_mm512_mul_round_ps(_mm512_cvt_roundepi32_ps(x, kDown), inverse, kDown));
}

// `active`: lanes that have a symbol, the others keep their states. `even`, `odd`: inverses of the frequencies, rounded
// down. The words of lane 0 end up at the lowest address.
template <bool All>
PERCODEC_WIDE inline void encode_step(Planes& x, __m512i frequency, __m512i start, __m512 even, __m512 odd,
                                      __mmask32 active, std::uint8_t*& next) noexcept {
    const __m512i limit = _mm512_slli_epi16(frequency, 3);  // of x >> 16
    const __mmask32 due =
        All ? _mm512_cmpge_epu16_mask(x.high, limit) : _mm512_mask_cmpge_epu16_mask(active, x.high, limit);
    const unsigned count = static_cast<unsigned>(_mm_popcnt_u32(due));
    next -= 2 * count;
    _mm512_mask_storeu_epi16(next, _bzhi_u32(~0u, count), _mm512_maskz_compress_epi16(due, x.low));
    const __m512i low = _mm512_mask_mov_epi16(x.low, due, x.high);
    const __m512i high = _mm512_mask_mov_epi16(x.high, due, _mm512_setzero_si512());

    const __m512i q_even = estimate(even_words(low, high), even), q_odd = estimate(odd_words(low, high), odd);
    const __m512i q_low = even_words(q_even, q_odd), q_high = odd_words(q_even, q_odd);
    // x % frequency, or that and one frequency more, fits 16 bits: so 16 bits are enough to find it.
    const __m512i left = _mm512_sub_epi16(low, _mm512_mullo_epi16(q_low, frequency));
    const __m512i times = _mm512_slli_epi16(q_low, kPrecisionBits);
    const __mmask32 full = _mm512_cmpge_epu16_mask(times, _mm512_set1_epi16(static_cast<short>(0xF000)));
    const __mmask32 over = _mm512_cmpge_epu16_mask(left, frequency);
    const __mmask32 carry = _mm512_mask_cmpge_epu16_mask(full, left, frequency);  // one quotient more passes 16 bits
    const __m512i whole = _mm512_set1_epi16(static_cast<short>(kProbabilityScale));
    const __m512i new_low = _mm512_add_epi16(_mm512_add_epi16(times, start), left);
    const __m512i new_high = _mm512_shldi_epi16(q_high, q_low, kPrecisionBits);
    const __m512i low_over = _mm512_mask_add_epi16(new_low, over, new_low, _mm512_sub_epi16(whole, frequency));
    const __m512i high_over = _mm512_mask_add_epi16(new_high, carry, new_high, _mm512_set1_epi16(1));
    x.low = All ? low_over : _mm512_mask_mov_epi16(x.low, active, low_over);
    x.high = All ? high_over : _mm512_mask_mov_epi16(x.high, active, high_over);
}

PERCODEC_WIDE inline __m512i slots(const Planes& x) noexcept {
    return _mm512_and_si512(x.low, _mm512_set1_epi16(static_cast<short>(kProbabilityScale - 1)));
}

// `slot`: slots(x). Reads 64 bytes at `next`: see WordReader::ready().
template <bool All>
PERCODEC_WIDE inline void decode_step(Planes& x, __m512i slot, __m512i frequency, __m512i start, __mmask32 active,
                                      const std::uint8_t*& next) noexcept {
    const __m512i times_low = _mm512_shldi_epi16(x.high, x.low, 16 - kPrecisionBits);  // x >> 12
    const __m512i times_high = _mm512_srli_epi16(x.high, kPrecisionBits);
    const __m512i product = _mm512_mullo_epi16(frequency, times_low);
    const __m512i upper =
        _mm512_add_epi16(_mm512_mulhi_epu16(frequency, times_low), _mm512_mullo_epi16(frequency, times_high));
    const __m512i offset = _mm512_sub_epi16(slot, start);
    const __m512i low = _mm512_add_epi16(product, offset);
    const __m512i high =
        _mm512_mask_add_epi16(upper, _mm512_cmplt_epu16_mask(low, offset), upper, _mm512_set1_epi16(1));
    // Below 2^15, without waiting for the carry: where there is one, product has its highest bit.
    const __m512i reached = _mm512_ternarylogic_epi32(upper, _mm512_or_si512(product, low),
                                                      _mm512_set1_epi16(static_cast<short>(kStateLow)), 0xF8);
    const __mmask32 due =
        All ? _mm512_testn_epi16_mask(reached, reached) : _mm512_mask_testn_epi16_mask(active, reached, reached);
    const __m512i new_low = _mm512_mask_expand_epi16(low, due, _mm512_loadu_si512(next));
    const __m512i new_high = _mm512_mask_mov_epi16(high, due, low);
    next += 2 * static_cast<unsigned>(_mm_popcnt_u32(due));
    x.low = All ? new_low : _mm512_mask_mov_epi16(x.low, active, new_low);
    x.high = All ? new_high : _mm512_mask_mov_epi16(x.high, active, new_high);
}

struct EncodeRow {
    __m512i frequency, start;
    __m512 inverse;
};

template <bool All>
PERCODEC_WIDE inline void encode_group(const EncodeRow& row, const std::uint8_t* symbols, Planes& x, __mmask32 active,
                                       std::uint8_t*& next) noexcept {
    const __m256i levels =
        All ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(symbols)) : _mm256_maskz_loadu_epi8(active, symbols);
    const __m512i index = _mm512_cvtepu8_epi16(levels);
    // Sixteen numbers by the four lowest bits of every 32: first the even lanes' levels, then the odd ones'.
    const __m512 even = _mm512_permutexvar_ps(index, row.inverse);
    const __m512 odd = _mm512_permutexvar_ps(_mm512_srli_epi32(index, 16), row.inverse);
    encode_step<All>(x, _mm512_permutexvar_epi16(index, row.frequency), _mm512_permutexvar_epi16(index, row.start),
                     even, odd, active, next);
}

template <unsigned Thresholds>
struct DecodeRow {
    __m512i threshold[Thresholds], frequency, start;
};

// The levels, a word each.
template <bool All, unsigned Thresholds>
PERCODEC_WIDE inline __m512i decode_group(const DecodeRow<Thresholds>& row, Planes& x, __mmask32 active,
                                          const std::uint8_t*& next) noexcept {
    const __m512i slot = slots(x), one = _mm512_set1_epi16(1);
    __m512i level = _mm512_setzero_si512(), more = level;
    for (unsigned k = 0; k < Thresholds; ++k) {  // two sums: each waits for itself only
        __m512i& sum = k % 2 ? more : level;
        sum = _mm512_mask_add_epi16(sum, _mm512_cmpge_epu16_mask(slot, row.threshold[k]), sum, one);
    }
    level = _mm512_add_epi16(level, more);
    decode_step<All>(x, slot, _mm512_permutexvar_epi16(level, row.frequency),
                     _mm512_permutexvar_epi16(level, row.start), active, next);
    return level;
}

template <unsigned Thresholds>
PERCODEC_WIDE bool decode(const Tables& tables, std::size_t plane, std::uint32_t* states, WordReader& words,
                          std::uint8_t* symbols) noexcept {
    Planes x[2] = {load_planes(states), load_planes(states + kWidth)};

    for (unsigned channel = 0; channel < tables.channels(); ++channel) {
        const Tables::Vector& v = *tables.vector(channel);
        DecodeRow<Thresholds> row;
        for (unsigned k = 0; k < Thresholds; ++k)
            row.threshold[k] = _mm512_set1_epi16(static_cast<short>(v.threshold[k]));
        row.frequency = _mm512_load_si512(v.frequency);
        row.start = _mm512_load_si512(v.start);
        for (std::size_t groups = plane / (2 * kWidth); groups > 0; --groups) {
            if (!words.ready()) return false;
            const std::uint8_t* next = words.next;
            const __m512i low = decode_group<true>(row, x[0], ~__mmask32{0}, next);
            const __m512i high = decode_group<true>(row, x[1], ~__mmask32{0}, next);
            const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);  // packing takes 128 bits of each in turn
            _mm512_storeu_si512(symbols, _mm512_permutexvar_epi64(order, _mm512_packus_epi16(low, high)));
            words.next = next;
            symbols += 2 * kWidth;
        }
        if (!words.ready()) return false;
        const std::size_t rest = plane % (2 * kWidth);
        for (unsigned r = 0; r < 2 && r * kWidth < rest; ++r) {
            const __mmask32 active = first_lanes(rest - r * kWidth);
            const __m512i levels = decode_group<false>(row, x[r], active, words.next);
            _mm256_mask_storeu_epi8(symbols + r * kWidth, active, _mm512_cvtepi16_epi8(levels));
        }
        symbols += rest;
    }
    for (unsigned r = 0; r < 2; ++r) store_planes(states + r * kWidth, x[r]);
    return true;
}

}  // namespace

bool wide_supported() noexcept {
    static const bool supported = kernel_supported(Kernel::avx512) && __builtin_cpu_supports("avx512vbmi2");
    return supported;
}

PERCODEC_WIDE std::uint8_t* encode_avx512_wide(const Tables& tables, const std::uint8_t* symbols, std::size_t plane,
                                               unsigned, std::uint32_t* states, std::uint8_t* begin,
                                               std::uint8_t* next) noexcept {
    Planes x[2] = {load_planes(states), load_planes(states + kWidth)};
    constexpr std::size_t lanes = 2 * kWidth;
    const std::size_t rest = plane % lanes;

    for (unsigned channel = tables.channels(); channel-- > 0;) {
        const Tables::Vector& v = *tables.vector(channel);
        const EncodeRow row{_mm512_load_si512(v.frequency), _mm512_load_si512(v.start), _mm512_load_ps(v.inverse)};
        const std::uint8_t* s = symbols + std::size_t{channel} * plane + (plane - rest);
        if (static_cast<std::size_t>(next - begin) < 2 * rest) return nullptr;
        for (unsigned r = 2; r-- > 0;) {
            if (rest > r * kWidth) encode_group<false>(row, s + r * kWidth, x[r], first_lanes(rest - r * kWidth), next);
        }
        for (std::size_t groups = plane / lanes; groups > 0; --groups) {
            s -= lanes;
            if (static_cast<std::size_t>(next - begin) < 2 * lanes) return nullptr;
            encode_group<true>(row, s + kWidth, x[1], ~__mmask32{0}, next);
            encode_group<true>(row, s, x[0], ~__mmask32{0}, next);
        }
    }
    for (unsigned r = 0; r < 2; ++r) store_planes(states + r * kWidth, x[r]);
    return next;
}

bool decode_avx512_wide(const Tables& tables, std::size_t plane, unsigned, std::uint32_t* states, WordReader& words,
                        std::uint8_t* symbols) noexcept {
    if (tables.levels() <= 6) return decode<5>(tables, plane, states, words, symbols);
    if (tables.levels() <= 8) return decode<7>(tables, plane, states, words, symbols);
    return decode<15>(tables, plane, states, words, symbols);
}

}  // namespace percodec

#endif
