// Thirty-two contexts at a time. Neighbours go by twos: their bytes side by side, times two weights, added in pairs,
// which no pair can make too large for 16 bits.
#include "shuffles.hpp"
#include "step_kernels.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstring>

#define PERCODEC_AVX2 __attribute__((target("avx2,bmi,popcnt")))

namespace percodec {
namespace {

PERCODEC_AVX2 inline __m256i load(const std::uint8_t* p) noexcept {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

PERCODEC_AVX2 inline void store(std::uint8_t* p, __m256i v) noexcept {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
}

PERCODEC_AVX2 inline std::uint32_t mask_of(__m256i bytes) noexcept {
    return static_cast<std::uint32_t>(_mm256_movemask_epi8(bytes));
}

// The weights of two neighbours, as often as a vector wants them. A missing one weighs nothing.
PERCODEC_AVX2 inline __m256i weights(const std::vector<StepTables::Near>& near, std::size_t k) noexcept {
    const int second = k + 1 < near.size() ? near[k + 1].weight : 0;
    return _mm256_set1_epi16(static_cast<short>((near[k].weight & 255) | second * 256));
}

// How many of fifteen borders are at or below each sum: four comparisons, for half of what is left each.
class Classes {
  public:
    PERCODEC_AVX2 explicit Classes(const StepTables::Plane& plane) noexcept {
        for (unsigned step = 0; step < 4; ++step)
            border_[step] =
                _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(plane.middle[step])));
    }
    PERCODEC_AVX2 __m256i of(__m256i sum) const noexcept {
        const __m256i moved = _mm256_xor_si256(sum, _mm256_set1_epi8(-128));  // comparisons are of signed bytes
        __m256i found = _mm256_setzero_si256();
        for (unsigned step = 0; step < 4; ++step) {
            const __m256i below = _mm256_cmpgt_epi8(_mm256_shuffle_epi8(border_[step], found), moved);
            found = _mm256_or_si256(found, _mm256_andnot_si256(below, _mm256_set1_epi8(static_cast<char>(8 >> step))));
        }
        return found;
    }

  private:
    __m256i border_[4];
};

// What a plane's symbols look at, with what is the same for all of them in registers, or near.
class Vectors {
  public:
    PERCODEC_AVX2 Vectors(const StepContexts& contexts, const StepRoom& room) noexcept
        : contexts_(contexts),
          values_(room.values.data()),
          symbols_(room.symbols.data()),
          must_(room.must.data()),
          widths_(contexts.plane.width.size()),
          places_(contexts.plane.place.size()),
          classes_(contexts.plane),
          shift_(_mm_cvtsi32_si128(static_cast<int>(contexts.plane.shift))) {
        for (std::size_t k = 0; k < widths_; k += 2) width_weights_[k / 2] = weights(contexts.plane.width, k);
        for (std::size_t k = 0; k < places_; k += 2) place_weights_[k / 2] = weights(contexts.plane.place, k);
    }

    // Rows of the tables.
    PERCODEC_AVX2 __m256i rows(std::size_t at) const noexcept {
        const std::uint8_t* const values = values_ + at;
        __m256i low = _mm256_setzero_si256(), high = low;
        for (std::size_t k = 0; k < widths_; k += 2) {
            const __m256i a = load(values + contexts_.width[k]);
            const __m256i b = load(values + contexts_.width[k + 1 < widths_ ? k + 1 : k]);
            low = _mm256_adds_epi16(low, _mm256_maddubs_epi16(_mm256_unpacklo_epi8(a, b), width_weights_[k / 2]));
            high = _mm256_adds_epi16(high, _mm256_maddubs_epi16(_mm256_unpackhi_epi8(a, b), width_weights_[k / 2]));
        }
        const __m256i found =
            classes_.of(_mm256_packus_epi16(_mm256_srl_epi16(low, shift_), _mm256_srl_epi16(high, shift_)));
        return contexts_.tail ? _mm256_add_epi8(found, load(must_ + at)) : found;
    }

    PERCODEC_AVX2 __m256i places(std::size_t at) const noexcept {
        const std::uint8_t* const symbols = symbols_ + at;
        __m256i low = _mm256_set1_epi16(static_cast<short>(contexts_.plane.bias + 32)), high = low;
        for (std::size_t k = 0; k < places_; k += 2) {
            const __m256i a = load(symbols + contexts_.place[k]);
            const __m256i b = load(symbols + contexts_.place[k + 1 < places_ ? k + 1 : k]);
            low = _mm256_add_epi16(low, _mm256_maddubs_epi16(_mm256_unpacklo_epi8(a, b), place_weights_[k / 2]));
            high = _mm256_add_epi16(high, _mm256_maddubs_epi16(_mm256_unpackhi_epi8(a, b), place_weights_[k / 2]));
        }
        const __m256i ones = _mm256_set1_epi16(255);
        return _mm256_packus_epi16(_mm256_and_si256(_mm256_srli_epi16(low, 6), ones),
                                   _mm256_and_si256(_mm256_srli_epi16(high, 6), ones));
    }

  private:
    const StepContexts& contexts_;
    const std::uint8_t *const values_, *const symbols_, *const must_;
    const std::size_t widths_, places_;
    const Classes classes_;
    const __m128i shift_;
    __m256i width_weights_[kMaxWidth / 2], place_weights_[kMaxPlace / 2];
};

}  // namespace

PERCODEC_AVX2 void step_find_avx2(const StepContexts& contexts, StepRoom& room, std::size_t base, const StepPart* parts,
                                  std::size_t count) noexcept {
    const Vectors vectors(contexts, room);
    std::uint8_t *const classes = room.classes.data(), *const places = room.places.data();
    for (std::size_t k = 0; k < count; ++k) {
        const std::size_t at = base + parts[k].at;
        store(classes + at, vectors.rows(at));
        if (contexts.has_place) store(places + at, vectors.places(at));
    }
}

PERCODEC_AVX2 void step_draft_avx2(const StepContexts& contexts, StepRoom& room, std::size_t base,
                                   const StepPart* parts, std::size_t count, StepDraft& draft) noexcept {
    const Vectors vectors(contexts, room);
    const __m256i constant = _mm256_set1_epi8(static_cast<char>(contexts.constant));
    const __m256i offset = _mm256_set1_epi8(static_cast<char>(contexts.plane.offset));
    const __m256i last = _mm256_set1_epi8(kEscape), low_bits = _mm256_set1_epi8(15);
    const std::uint8_t* const symbols = room.symbols.data() + contexts.first;
    std::uint8_t* const musts = room.must.data();
    std::uint16_t* next = draft.entries;
    for (std::size_t k = 0; k < count; ++k) {
        const std::size_t at = base + parts[k].at;
        const std::uint32_t mask = parts[k].mask;
        const __m256i rows = vectors.rows(at), symbol = load(symbols + at);
        const __m256i from = _mm256_sub_epi8(symbol, contexts.has_place ? vectors.places(at) : constant);
        const __m256i token = _mm256_min_epu8(_mm256_add_epi8(from, _mm256_set1_epi8(kHalf)), last);
        if (contexts.tail) {
            const __m256i zero = _mm256_cmpeq_epi8(symbol, offset);
            store(musts + at, _mm256_and_si256(zero, load(musts + at)));
        }
        std::uint32_t escaped = mask & mask_of(_mm256_cmpeq_epi8(token, last));
        if (escaped != 0) {
            alignas(32) std::uint8_t distance[kStepPart];
            _mm256_store_si256(reinterpret_cast<__m256i*>(distance), from);
            for (; escaped != 0; escaped &= escaped - 1) *draft.escapes++ = distance[_tzcnt_u32(escaped)];
        }
        // row * 16 + token, in two bytes; then those that are coded, eight at a time, side by side.
        const __m256i low = _mm256_or_si256(_mm256_slli_epi16(_mm256_and_si256(rows, low_bits), 4), token);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(rows, 4), low_bits);
        const __m256i even = _mm256_unpacklo_epi8(low, high), odd = _mm256_unpackhi_epi8(low, high);
        const auto write = [&](__m128i eight, unsigned due) PERCODEC_AVX2 {
            const __m128i packed =
                _mm_shuffle_epi8(eight, _mm_load_si128(reinterpret_cast<const __m128i*>(kPack[due].data())));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(next), packed);
            next += _mm_popcnt_u32(due);
        };
        write(_mm256_castsi256_si128(even), mask & 255);
        write(_mm256_castsi256_si128(odd), mask >> 8 & 255);
        write(_mm256_extracti128_si256(even, 1), mask >> 16 & 255);
        write(_mm256_extracti128_si256(odd, 1), mask >> 24);
    }
    draft.entries = next;
}

namespace {

PERCODEC_AVX2 std::size_t reaching_avx2(const std::uint8_t* extents, std::uint8_t band, std::size_t count,
                                        StepPart* parts) noexcept {
    const __m256i limit = _mm256_set1_epi8(static_cast<char>(band));  // of extents, at most 15: signed or not
    std::size_t kept = 0;
    for (std::size_t k = 0; k < count; ++k) {
        parts[kept] = {static_cast<std::uint32_t>(k * kStepPart),
                       mask_of(_mm256_cmpgt_epi8(load(extents + k * kStepPart), limit))};
        kept += parts[kept].mask != 0 ? 1u : 0u;
    }
    return kept;
}

PERCODEC_AVX2 std::size_t places_avx2(const StepPart* parts, std::size_t count, std::size_t base,
                                      std::uint32_t* out) noexcept {
    const __m128i lanes = _mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7);
    std::uint32_t* next = out;
    for (std::size_t k = 0; k < count; ++k) {
        for (unsigned from = 0; from < kStepPart; from += 8) {
            const unsigned due = parts[k].mask >> from & 255;
            const __m128i which =
                _mm_shuffle_epi8(lanes, _mm_load_si128(reinterpret_cast<const __m128i*>(kPack[due].data())));
            const __m256i at = _mm256_set1_epi32(static_cast<int>(base + parts[k].at + from));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(next), _mm256_add_epi32(at, _mm256_cvtepu16_epi32(which)));
            next += _mm_popcnt_u32(due);
        }
    }
    return static_cast<std::size_t>(next - out);
}

}  // namespace

PERCODEC_STEP_LOOPS(kStepLoopsAvx2, PERCODEC_AVX2, reaching_avx2, places_avx2)

}  // namespace percodec

#endif
