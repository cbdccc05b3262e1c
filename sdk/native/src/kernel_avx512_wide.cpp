// Profile 0, 64 lanes, in planes. Fewer lanes wait for themselves: kernel_avx512.cpp is faster.
#if defined(__x86_64__)

#include "kernels.hpp"
#include "planes_avx512.hpp"

namespace percodec {
namespace {

using planes::first_lanes, planes::kWidth, planes::Planes;

// Of two registers the even words, or the odd words, side by side: numbers of 32 bits from their halves, and back.
PERCODEC_WIDE inline __m512i even_words(__m512i low, __m512i high) noexcept {
    return _mm512_ternarylogic_epi32(_mm512_set1_epi32(0xFFFF), low, _mm512_slli_epi32(high, 16), 0xCA);
}
PERCODEC_WIDE inline __m512i odd_words(__m512i low, __m512i high) noexcept {
    return _mm512_ternarylogic_epi32(_mm512_set1_epi32(0xFFFF), _mm512_srli_epi32(low, 16), high, 0xCA);
}

// For x below frequency << 19: x / frequency << 12, + x % frequency + start. `even`, `odd`: inverses of the frequencies
// of the even and the odd lanes.
PERCODEC_WIDE inline Planes grow(const Planes& x, __m512i frequency, __m512i start, __m512 even, __m512 odd) noexcept {
    const __m512i q_even = estimate(even_words(x.low, x.high), even);
    const __m512i q_odd = estimate(odd_words(x.low, x.high), odd);
    const __m512i q_low = even_words(q_even, q_odd), q_high = odd_words(q_even, q_odd);
    // x % frequency, or that and one frequency more, fits 16 bits: so 16 bits are enough to find it.
    const __m512i left = _mm512_sub_epi16(x.low, _mm512_mullo_epi16(q_low, frequency));
    const __m512i times = _mm512_slli_epi16(q_low, kPrecisionBits);
    const __m512i whole = _mm512_set1_epi16(static_cast<short>(kProbabilityScale));
    const __m512i last = _mm512_set1_epi16(static_cast<short>(65536u - kProbabilityScale));
    const __mmask32 full = _mm512_cmpge_epu16_mask(times, last);
    const __mmask32 over = _mm512_cmpge_epu16_mask(left, frequency);
    const __mmask32 carry = _mm512_mask_cmpge_epu16_mask(full, left, frequency);  // one quotient more passes 16 bits
    const __m512i low = _mm512_add_epi16(_mm512_add_epi16(times, start), left);
    const __m512i high = _mm512_shldi_epi16(q_high, q_low, kPrecisionBits);
    return {_mm512_mask_add_epi16(low, over, low, _mm512_sub_epi16(whole, frequency)),
            _mm512_mask_add_epi16(high, carry, high, _mm512_set1_epi16(1))};
}

// `active`: lanes that have a symbol, the others keep their states. `even`, `odd`: inverses of their frequencies.
template <bool All>
PERCODEC_WIDE inline void encode_step(Planes& x, __m512i frequency, __m512i start, __m512 even, __m512 odd,
                                      __mmask32 active, std::uint8_t*& next) noexcept {
    const __m512i limit = _mm512_slli_epi16(frequency, 3);  // of x >> 16
    const __mmask32 due =
        All ? _mm512_cmpge_epu16_mask(x.high, limit) : _mm512_mask_cmpge_epu16_mask(active, x.high, limit);
    const Planes grown = grow(planes::send(x, due, next), frequency, start, even, odd);
    x.low = All ? grown.low : _mm512_mask_mov_epi16(x.low, active, grown.low);
    x.high = All ? grown.high : _mm512_mask_mov_epi16(x.high, active, grown.high);
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
    const Planes full = planes::fetch({low, high}, due, next);
    x.low = All ? full.low : _mm512_mask_mov_epi16(x.low, active, full.low);
    x.high = All ? full.high : _mm512_mask_mov_epi16(x.high, active, full.high);
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
    Planes x[2] = {planes::load(states), planes::load(states + kWidth)};

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
    for (unsigned r = 0; r < 2; ++r) planes::store(states + r * kWidth, x[r]);
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
    Planes x[2] = {planes::load(states), planes::load(states + kWidth)};
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
    for (unsigned r = 0; r < 2; ++r) planes::store(states + r * kWidth, x[r]);
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
