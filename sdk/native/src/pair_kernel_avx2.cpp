// Profile 3 with AVX2: 16, 32 or 64 lanes in planes.
#if defined(__x86_64__)

#include <immintrin.h>

#include "pair_kernels.hpp"
#include "shuffles.hpp"

#define PERCODEC_VECTOR __attribute__((target("avx2,popcnt")))

namespace percodec {
namespace {

constexpr unsigned kHalves = 2;  // look-ups are of 32 bytes

using Words = std::uint16_t __attribute__((vector_size(32)));  // no struct: GCC would move its copies in halves

PERCODEC_VECTOR inline __m256i bits(Words a) noexcept {
    return reinterpret_cast<__m256i>(a);
}
PERCODEC_VECTOR inline Words words_of(__m256i a) noexcept {
    return reinterpret_cast<Words>(a);
}

PERCODEC_VECTOR inline Words all(unsigned word) noexcept {
    return words_of(_mm256_set1_epi16(static_cast<short>(word)));
}
PERCODEC_VECTOR inline Words load(const void* p) noexcept {
    return words_of(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
PERCODEC_VECTOR inline void store(void* p, Words a) noexcept {
    _mm256_storeu_si256(static_cast<__m256i*>(p), bits(a));
}
PERCODEC_VECTOR inline Words repeat(const std::uint16_t* eight) noexcept {
    return words_of(_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(eight))));
}
PERCODEC_VECTOR inline Words times_high(Words a, Words b) noexcept {
    return words_of(_mm256_mulhi_epu16(bits(a), bits(b)));
}
PERCODEC_VECTOR inline Words larger_bytes(Words a, Words b) noexcept {
    return words_of(_mm256_max_epu8(bits(a), bits(b)));
}
PERCODEC_VECTOR inline Words equal(Words a, Words b) noexcept {
    return words_of(_mm256_cmpeq_epi16(bits(a), bits(b)));
}
PERCODEC_VECTOR inline Words at_least(Words a, Words b) noexcept {
    return equal(words_of(_mm256_max_epu16(bits(a), bits(b))), a);
}
// Of words below 2^15.
PERCODEC_VECTOR inline Words above(Words a, Words b) noexcept {
    return words_of(_mm256_cmpgt_epi16(bits(a), bits(b)));
}
PERCODEC_VECTOR inline Words choose(Words mask, Words a, Words b) noexcept {
    return words_of(_mm256_blendv_epi8(bits(b), bits(a), bits(mask)));
}
PERCODEC_VECTOR inline Words pick(Words repeated, Words bytes) noexcept {
    return words_of(_mm256_shuffle_epi8(bits(repeated), bits(bytes)));
}

// Places in a Table of 16 * Rows, a byte each; of row k as k * 16 less: what is negative then finds nothing.
template <unsigned Halves, unsigned Rows>
struct Pairs {
    __m256i place[Rows];
    PERCODEC_VECTOR explicit Pairs(const Words (&symbols)[Halves]) noexcept {
        const __m256i first_times_8 = _mm256_set1_epi16(kFirstTimes8);
        const __m256i front = _mm256_maddubs_epi16(bits(symbols[0]), first_times_8);
        const __m256i back = Halves == 1 ? front : _mm256_maddubs_epi16(bits(symbols[Halves - 1]), first_times_8);
        place[0] = _mm256_packus_epi16(front, back);
        for (unsigned k = 1; k < Rows; ++k)
            place[k] = _mm256_sub_epi8(place[0], _mm256_set1_epi8(static_cast<char>(16 * k)));
    }
};

// The low and the high bytes of words, each row combined with the one before: what a place finds in the rows up to its
// own is undone row by row.
template <unsigned Rows>
struct Table {
    __m256i low[Rows], high[Rows];
    PERCODEC_VECTOR explicit Table(const std::uint16_t* words) noexcept {
        const __m128i byte = _mm_set1_epi16(0xFF);
        __m128i before[2] = {_mm_setzero_si128(), _mm_setzero_si128()};
        for (unsigned k = 0; k < Rows; ++k) {
            const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(words + 16 * k));
            const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(words + 16 * k + 8));
            const __m128i bytes[2] = {_mm_packus_epi16(_mm_and_si128(a, byte), _mm_and_si128(b, byte)),
                                      _mm_packus_epi16(_mm_srli_epi16(a, 8), _mm_srli_epi16(b, 8))};
            low[k] = _mm256_broadcastsi128_si256(_mm_xor_si128(bytes[0], before[0]));
            high[k] = _mm256_broadcastsi128_si256(_mm_xor_si128(bytes[1], before[1]));
            before[0] = bytes[0];
            before[1] = bytes[1];
        }
    }
    template <unsigned Halves>
    PERCODEC_VECTOR void at(const Pairs<Halves, Rows>& pairs, Words (&words)[Halves]) const noexcept {
        __m256i a = _mm256_shuffle_epi8(low[0], pairs.place[0]), b = _mm256_shuffle_epi8(high[0], pairs.place[0]);
        for (unsigned k = 1; k < Rows; ++k) {
            a = _mm256_xor_si256(a, _mm256_shuffle_epi8(low[k], pairs.place[k]));
            b = _mm256_xor_si256(b, _mm256_shuffle_epi8(high[k], pairs.place[k]));
        }
        words[0] = words_of(_mm256_unpacklo_epi8(a, b));
        if (Halves == 2) words[Halves - 1] = words_of(_mm256_unpackhi_epi8(a, b));
    }
};

// Masks of eight lanes: byte h those of half h's lower lanes, byte 2 + h of its upper.
template <unsigned Halves>
PERCODEC_VECTOR inline unsigned masks(const Words (&due)[Halves]) noexcept {
    return static_cast<unsigned>(_mm256_movemask_epi8(_mm256_packs_epi16(bits(due[0]), bits(due[Halves - 1]))));
}

PERCODEC_VECTOR inline __m128i shuffle(const Shuffles& table, unsigned mask) noexcept {
    return _mm_load_si128(reinterpret_cast<const __m128i*>(table[mask].data()));
}

// The words of the lanes in `due` leave, lane 0's to the lowest address. Stores 16 bytes below `next` for eight lanes.
PERCODEC_VECTOR inline std::uint8_t* send_eight(__m128i words, unsigned due, std::uint8_t* next) noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(next - 16), _mm_shuffle_epi8(words, shuffle(kCompress, due)));
    return next - 2 * static_cast<unsigned>(_mm_popcnt_u32(due));
}

template <unsigned Halves>
PERCODEC_VECTOR inline std::uint8_t* send(const Words (&words)[Halves], const Words (&due)[Halves],
                                          std::uint8_t* next) noexcept {
    const unsigned all = masks(due);
    for (unsigned h = Halves; h-- > 0;) {
        next = send_eight(_mm256_extracti128_si256(bits(words[h]), 1), all >> (16 + 8 * h) & 0xFFu, next);
        next = send_eight(_mm256_castsi256_si128(bits(words[h])), all >> 8 * h & 0xFFu, next);
    }
    return next;
}

PERCODEC_VECTOR inline __m128i fetch_eight(unsigned due, const std::uint8_t*& next) noexcept {
    const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(next));
    next += 2 * static_cast<unsigned>(_mm_popcnt_u32(due));
    return _mm_shuffle_epi8(words, shuffle(kExpand, due));
}

// Words for the lanes in `due`. Reads 16 bytes at `next` for eight lanes: see WordReader::ready().
template <unsigned Halves>
PERCODEC_VECTOR inline const std::uint8_t* fetch(Words (&words)[Halves], const Words (&due)[Halves],
                                                 const std::uint8_t* next) noexcept {
    const unsigned all = masks(due);
    for (unsigned h = 0; h < Halves; ++h) {
        const __m128i lower = fetch_eight(all >> 8 * h & 0xFFu, next);
        const __m128i upper = fetch_eight(all >> (16 + 8 * h) & 0xFFu, next);
        words[h] = words_of(_mm256_inserti128_si256(_mm256_castsi128_si256(lower), upper, 1));
    }
    return next;
}

}  // namespace
}  // namespace percodec

#include "pair_planes.hpp"

#endif
