// AVX-512 kernels: sixteen lanes in a register, up to four registers, the whole alphabet in two-operand permutes.
// Any lane count works: the last register carries a mask.
#if defined(__x86_64__)

#include "avx512.hpp"
#include "kernels.hpp"

namespace percodec {
namespace {

constexpr unsigned kWidth = 16;

struct EncodeRow {
    __m512i reciprocal, shift, bias, complement;
};

// `active`: lanes that have a symbol. The words of lane 0 end up at the lowest address.
PERCODEC_AVX512 inline __m512i encode_group(const EncodeRow& row, __m128i symbols, __m512i x, __mmask16 active,
                                            std::uint8_t*& next) noexcept {
    const __m512i level = _mm512_cvtepu8_epi32(symbols);
    const __m512i complement = _mm512_permutexvar_epi32(level, row.complement);
    const __m512i frequency = _mm512_sub_epi32(_mm512_set1_epi32(static_cast<int>(kProbabilityScale)), complement);
    const __mmask16 due = _mm512_mask_cmpge_epu32_mask(active, x, _mm512_slli_epi32(frequency, 19));
    const __m256i words = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(due, x));
    const unsigned count = static_cast<unsigned>(_mm_popcnt_u32(due));
    next -= 2 * count;
    _mm256_mask_storeu_epi16(next, static_cast<__mmask16>((1u << count) - 1u), words);
    const __m512i y = _mm512_mask_srli_epi32(x, due, x, 16);

    const __m512i reciprocal = _mm512_permutexvar_epi32(level, row.reciprocal);
    const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(y, reciprocal), 32);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(y, 32), _mm512_srli_epi64(reciprocal, 32));
    const __m512i high = _mm512_mask_mov_epi32(even, 0xAAAA, odd);
    const __m512i quotient = _mm512_srlv_epi32(high, _mm512_permutexvar_epi32(level, row.shift));
    const __m512i grown = _mm512_mullo_epi32(quotient, complement);
    const __m512i moved = _mm512_add_epi32(y, _mm512_permutexvar_epi32(level, row.bias));
    return _mm512_mask_add_epi32(x, active, moved, grown);
}

template <unsigned Registers>
PERCODEC_AVX512 std::uint8_t* encode(const Tables& tables, const std::uint8_t* symbols, std::size_t plane,
                                     unsigned lanes, std::uint32_t* states, std::uint8_t* begin,
                                     std::uint8_t* next) noexcept {
    __m512i x[Registers];
    for (unsigned r = 0; r < Registers; ++r) x[r] = _mm512_loadu_si512(states + r * kWidth);
    const __mmask16 last = first_of_16(lanes - (Registers - 1) * kWidth);
    const std::size_t rest = plane % lanes;

    for (unsigned channel = tables.channels(); channel-- > 0;) {
        const Tables::Vector& v = *tables.vector(channel);
        const EncodeRow row{_mm512_load_si512(v.reciprocal), _mm512_load_si512(v.shift), _mm512_load_si512(v.bias),
                            _mm512_load_si512(v.complement)};
        const std::uint8_t* s = symbols + std::size_t{channel} * plane + (plane - rest);
        if (static_cast<std::size_t>(next - begin) < 2 * rest) return nullptr;
        for (unsigned r = Registers; r-- > 0;) {
            if (rest <= r * kWidth) continue;
            const __mmask16 active = first_of_16(rest - r * kWidth);
            x[r] = encode_group(row, _mm_maskz_loadu_epi8(active, s + r * kWidth), x[r], active, next);
        }
        for (std::size_t groups = plane / lanes; groups > 0; --groups) {
            s -= lanes;
            if (static_cast<std::size_t>(next - begin) < 2 * lanes) return nullptr;
            for (unsigned r = Registers; r-- > 0;) {
                const __mmask16 active = r == Registers - 1 ? last : static_cast<__mmask16>(0xFFFF);
                x[r] = encode_group(row, _mm_maskz_loadu_epi8(active, s + r * kWidth), x[r], active, next);
            }
        }
    }
    for (unsigned r = 0; r < Registers; ++r) _mm512_storeu_si512(states + r * kWidth, x[r]);
    return next;
}

template <unsigned Thresholds>
struct DecodeRow {
    __m512i threshold[Thresholds];
    __m512i frequency_start;
};

template <unsigned Thresholds>
PERCODEC_AVX512 inline __m512i decode_group(const DecodeRow<Thresholds>& row, __m512i x, __mmask16 active,
                                            const std::uint8_t*& next, __m128i* symbols) noexcept {
    const __m512i slot = _mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(kProbabilityScale - 1)));
    const __m512i one = _mm512_set1_epi32(1);
    __m512i level = _mm512_setzero_si512();
    for (unsigned k = 0; k < Thresholds; ++k) {
        level = _mm512_mask_add_epi32(level, _mm512_cmpge_epu32_mask(slot, row.threshold[k]), level, one);
    }
    const __m512i found = _mm512_permutexvar_epi32(level, row.frequency_start);
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

template <unsigned Registers, unsigned Thresholds>
PERCODEC_AVX512 bool decode(const Tables& tables, std::size_t plane, unsigned lanes, std::uint32_t* states,
                            WordReader& words, std::uint8_t* symbols) noexcept {
    __m512i x[Registers];
    for (unsigned r = 0; r < Registers; ++r) x[r] = _mm512_loadu_si512(states + r * kWidth);
    const __mmask16 last = first_of_16(lanes - (Registers - 1) * kWidth);
    const std::size_t rest = plane % lanes;
    __m128i found;

    for (unsigned channel = 0; channel < tables.channels(); ++channel) {
        const Tables::Vector& v = *tables.vector(channel);
        DecodeRow<Thresholds> row;
        for (unsigned k = 0; k < Thresholds; ++k)
            row.threshold[k] = _mm512_set1_epi32(static_cast<int>(v.threshold[k]));
        row.frequency_start = _mm512_load_si512(v.frequency_start);
        for (std::size_t groups = plane / lanes; groups > 0; --groups) {
            if (!words.ready()) return false;
            const std::uint8_t* next = words.next;
            for (unsigned r = 0; r < Registers; ++r) {
                const __mmask16 active = r == Registers - 1 ? last : static_cast<__mmask16>(0xFFFF);
                x[r] = decode_group<Thresholds>(row, x[r], active, next, &found);
                _mm_mask_storeu_epi8(symbols + r * kWidth, active, found);
            }
            words.next = next;
            symbols += lanes;
        }
        if (!words.ready()) return false;
        for (unsigned r = 0; r < Registers && r * kWidth < rest; ++r) {
            const __mmask16 active = first_of_16(rest - r * kWidth);
            x[r] = decode_group<Thresholds>(row, x[r], active, words.next, &found);
            _mm_mask_storeu_epi8(symbols + r * kWidth, active, found);
        }
        symbols += rest;
    }
    for (unsigned r = 0; r < Registers; ++r) _mm512_storeu_si512(states + r * kWidth, x[r]);
    return true;
}

template <unsigned Registers>
PERCODEC_AVX512 bool decode_levels(const Tables& tables, std::size_t plane, unsigned lanes, std::uint32_t* states,
                                   WordReader& words, std::uint8_t* symbols) noexcept {
    if (tables.levels() <= 6) return decode<Registers, 5>(tables, plane, lanes, states, words, symbols);
    if (tables.levels() <= 8) return decode<Registers, 7>(tables, plane, lanes, states, words, symbols);
    return decode<Registers, 15>(tables, plane, lanes, states, words, symbols);
}

}  // namespace

std::uint8_t* encode_avx512(const Tables& tables, const std::uint8_t* symbols, std::size_t plane, unsigned lanes,
                            std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next) noexcept {
    switch ((lanes + kWidth - 1) / kWidth) {
        case 1:
            return encode<1>(tables, symbols, plane, lanes, states, begin, next);
        case 2:
            return encode<2>(tables, symbols, plane, lanes, states, begin, next);
        case 3:
            return encode<3>(tables, symbols, plane, lanes, states, begin, next);
        default:
            return encode<4>(tables, symbols, plane, lanes, states, begin, next);
    }
}

bool decode_avx512(const Tables& tables, std::size_t plane, unsigned lanes, std::uint32_t* states, WordReader& words,
                   std::uint8_t* symbols) noexcept {
    switch ((lanes + kWidth - 1) / kWidth) {
        case 1:
            return decode_levels<1>(tables, plane, lanes, states, words, symbols);
        case 2:
            return decode_levels<2>(tables, plane, lanes, states, words, symbols);
        case 3:
            return decode_levels<3>(tables, plane, lanes, states, words, symbols);
        default:
            return decode_levels<4>(tables, plane, lanes, states, words, symbols);
    }
}

}  // namespace percodec

#endif
