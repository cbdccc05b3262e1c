// Profile 0 in planes, one register of lanes or two.
#if defined(__x86_64__)

#include "kernels.hpp"
#include "planes_avx512.hpp"

namespace percodec {
namespace {

using planes::first_lanes, planes::kWidth, planes::Planes;

// Of two registers the even words, or the odd words, side by side: numbers of 32 bits from their halves, and back.
PERCODEC_AVX512 inline __m512i even_words(__m512i low, __m512i high) noexcept {
    return _mm512_ternarylogic_epi32(_mm512_set1_epi32(0xFFFF), low, _mm512_slli_epi32(high, 16), 0xCA);
}
PERCODEC_AVX512 inline __m512i odd_words(__m512i low, __m512i high) noexcept {
    return _mm512_ternarylogic_epi32(_mm512_set1_epi32(0xFFFF), _mm512_srli_epi32(low, 16), high, 0xCA);
}

// For x below frequency << 19: x / frequency << 12, + x % frequency + start. `even`, `odd`: inverses of the frequencies
// of the even and the odd lanes.
PERCODEC_AVX512 inline Planes grow(const Planes& x, __m512i frequency, __m512i start, __m512 even,
                                   __m512 odd) noexcept {
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

// `active`: lanes that have a symbol. With Rest the others keep their states; without it they are of no use. `even`,
// `odd`: inverses of their frequencies.
template <bool Rest>
PERCODEC_AVX512 inline void encode_step(Planes& x, __m512i frequency, __m512i start, __m512 even, __m512 odd,
                                        __mmask32 active, std::uint8_t*& next) noexcept {
    const __m512i limit = _mm512_slli_epi16(frequency, 3);  // of x >> 16
    const __mmask32 due = _mm512_mask_cmpge_epu16_mask(active, x.high, limit);
    const Planes grown = grow(planes::send(x, due, next), frequency, start, even, odd);
    x.low = Rest ? _mm512_mask_mov_epi16(x.low, active, grown.low) : grown.low;
    x.high = Rest ? _mm512_mask_mov_epi16(x.high, active, grown.high) : grown.high;
}

PERCODEC_AVX512 inline __m512i slots(const Planes& x) noexcept {
    return _mm512_and_si512(x.low, _mm512_set1_epi16(static_cast<short>(kProbabilityScale - 1)));
}

// `slot`: slots(x). Reads 64 bytes at `next`: see WordReader::ready().
template <bool Rest>
PERCODEC_AVX512 inline void decode_step(Planes& x, __m512i slot, __m512i frequency, __m512i start, __mmask32 active,
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
    const __mmask32 due = _mm512_mask_testn_epi16_mask(active, reached, reached);
    const Planes full = planes::fetch({low, high}, due, next);
    x.low = Rest ? _mm512_mask_mov_epi16(x.low, active, full.low) : full.low;
    x.high = Rest ? _mm512_mask_mov_epi16(x.high, active, full.high) : full.high;
}

struct EncodeRow {
    __m512i frequency, start;
    __m512 inverse;
};

template <bool Rest>
PERCODEC_AVX512 inline void encode_group(const EncodeRow& row, const std::uint8_t* symbols, Planes& x, __mmask32 active,
                                         std::uint8_t*& next) noexcept {
    const __m512i index = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(active, symbols));
    // Sixteen numbers by the four lowest bits of every 32: first the even lanes' levels, then the odd ones'.
    const __m512 even = _mm512_permutexvar_ps(index, row.inverse);
    const __m512 odd = _mm512_permutexvar_ps(_mm512_srli_epi32(index, 16), row.inverse);
    encode_step<Rest>(x, _mm512_permutexvar_epi16(index, row.frequency), _mm512_permutexvar_epi16(index, row.start),
                      even, odd, active, next);
}

template <unsigned Thresholds>
struct DecodeRow {
    __m512i threshold[Thresholds], frequency, start;
};

// The levels, a word each.
template <bool Rest, unsigned Thresholds>
PERCODEC_AVX512 inline __m512i decode_group(const DecodeRow<Thresholds>& row, Planes& x, __mmask32 active,
                                            const std::uint8_t*& next) noexcept {
    const __m512i slot = slots(x), one = _mm512_set1_epi16(1);
    __m512i level = _mm512_setzero_si512(), more = level;
    for (unsigned k = 0; k < Thresholds; ++k) {  // two sums: each waits for itself only
        __m512i& sum = k % 2 ? more : level;
        sum = _mm512_mask_add_epi16(sum, _mm512_cmpge_epu16_mask(slot, row.threshold[k]), sum, one);
    }
    level = _mm512_add_epi16(level, more);
    decode_step<Rest>(x, slot, _mm512_permutexvar_epi16(level, row.frequency),
                      _mm512_permutexvar_epi16(level, row.start), active, next);
    return level;
}

template <unsigned Registers, unsigned Thresholds>
PERCODEC_AVX512 bool decode(const Tables& tables, std::size_t plane, unsigned lanes, std::uint32_t* states,
                            WordReader& words, std::uint8_t* symbols) noexcept {
    constexpr unsigned kLast = Registers - 1;
    const __mmask32 last = first_lanes(lanes - kWidth * kLast);
    Planes x[Registers];
    for (unsigned r = 0; r < Registers; ++r) x[r] = planes::load(states + r * kWidth);

    for (unsigned channel = 0; channel < tables.channels(); ++channel) {
        const Tables::Vector& v = *tables.vector(channel);
        DecodeRow<Thresholds> row;
        for (unsigned k = 0; k < Thresholds; ++k)
            row.threshold[k] = _mm512_set1_epi16(static_cast<short>(v.threshold[k]));
        row.frequency = _mm512_load_si512(v.frequency);
        row.start = _mm512_load_si512(v.start);
        for (std::size_t groups = plane / lanes; groups > 0; --groups) {
            if (!words.ready()) return false;
            const std::uint8_t* next = words.next;
            for (unsigned r = 0; r < Registers; ++r) {
                const __mmask32 mine = r < kLast ? ~__mmask32{0} : last;
                const __m512i levels = decode_group<false>(row, x[r], mine, next);
                _mm256_mask_storeu_epi8(symbols + r * kWidth, mine, _mm512_cvtepi16_epi8(levels));
            }
            words.next = next;
            symbols += lanes;
        }
        if (!words.ready()) return false;
        const std::size_t rest = plane % lanes;
        for (unsigned r = 0; r < Registers && r * kWidth < rest; ++r) {
            const __mmask32 active = first_lanes(rest - r * kWidth);
            const __m512i levels = decode_group<true>(row, x[r], active, words.next);
            _mm256_mask_storeu_epi8(symbols + r * kWidth, active, _mm512_cvtepi16_epi8(levels));
        }
        symbols += rest;
    }
    for (unsigned r = 0; r < Registers; ++r) planes::store(states + r * kWidth, x[r]);
    return true;
}

template <unsigned Registers>
PERCODEC_AVX512 std::uint8_t* encode(const Tables& tables, const std::uint8_t* symbols, std::size_t plane,
                                     unsigned lanes, std::uint32_t* states, std::uint8_t* begin,
                                     std::uint8_t* next) noexcept {
    constexpr unsigned kLast = Registers - 1;
    const __mmask32 last = first_lanes(lanes - kWidth * kLast);
    Planes x[Registers];
    for (unsigned r = 0; r < Registers; ++r) x[r] = planes::load(states + r * kWidth);
    const std::size_t rest = plane % lanes;

    for (unsigned channel = tables.channels(); channel-- > 0;) {
        const Tables::Vector& v = *tables.vector(channel);
        const EncodeRow row{_mm512_load_si512(v.frequency), _mm512_load_si512(v.start), _mm512_load_ps(v.inverse)};
        const std::uint8_t* s = symbols + std::size_t{channel} * plane + (plane - rest);
        if (static_cast<std::size_t>(next - begin) < 2 * rest) return nullptr;
        for (unsigned r = Registers; r-- > 0;) {
            if (rest > r * kWidth) encode_group<true>(row, s + r * kWidth, x[r], first_lanes(rest - r * kWidth), next);
        }
        for (std::size_t groups = plane / lanes; groups > 0; --groups) {
            s -= lanes;
            if (static_cast<std::size_t>(next - begin) < 2 * lanes) return nullptr;
            for (unsigned r = Registers; r-- > 0;)
                encode_group<false>(row, s + r * kWidth, x[r], r < kLast ? ~__mmask32{0} : last, next);
        }
    }
    for (unsigned r = 0; r < Registers; ++r) planes::store(states + r * kWidth, x[r]);
    return next;
}

template <unsigned Registers>
bool decode_levels(const Tables& tables, std::size_t plane, unsigned lanes, std::uint32_t* states, WordReader& words,
                   std::uint8_t* symbols) noexcept {
    const auto run = tables.levels() <= 6   ? decode<Registers, 5>
                     : tables.levels() <= 8 ? decode<Registers, 7>
                                            : decode<Registers, 15>;
    return run(tables, plane, lanes, states, words, symbols);
}

}  // namespace

std::uint8_t* encode_avx512(const Tables& tables, const std::uint8_t* symbols, std::size_t plane, unsigned lanes,
                            std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next) noexcept {
    return (lanes > kWidth ? encode<2> : encode<1>)(tables, symbols, plane, lanes, states, begin, next);
}

bool decode_avx512(const Tables& tables, std::size_t plane, unsigned lanes, std::uint32_t* states, WordReader& words,
                   std::uint8_t* symbols) noexcept {
    return (lanes > kWidth ? decode_levels<2> : decode_levels<1>)(tables, plane, lanes, states, words, symbols);
}

}  // namespace percodec

#endif
