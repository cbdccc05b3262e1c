// Contexts: thirty-two classes and places at a time. Neighbours go by twos: their bytes side by side, times two
// weights, added in pairs, which no pair can make too large for 16 bits. Tokens: each one's row is compared with its
// slot in one step, and eight states at a time go on.
#include "shuffles.hpp"
#include "step_kernels.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#define PERCODEC_AVX2 __attribute__((target("avx2,bmi,popcnt")))

namespace percodec {
namespace {

PERCODEC_AVX2 inline __m256i load(const std::uint8_t* p) noexcept {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

// The weights of two neighbours, as often as a vector wants them. A missing one weighs nothing.
PERCODEC_AVX2 inline __m256i weights(const std::vector<StepTables::Near>& near, std::size_t k) noexcept {
    const int second = k + 1 < near.size() ? near[k + 1].weight : 0;
    return _mm256_set1_epi16(static_cast<short>((near[k].weight & 255) | second * 256));
}

}  // namespace

PERCODEC_AVX2 void step_block_avx2(const StepContexts& contexts, StepRoom& room, std::size_t at,
                                   std::size_t count) noexcept {
    const StepTables::Plane& plane = contexts.plane;
    const std::size_t widths = plane.width.size(), places = plane.place.size();
    __m256i width_weights[kMaxWidth / 2], place_weights[kMaxPlace / 2], border[kStepClasses - 1];
    for (std::size_t k = 0; k < widths; k += 2) width_weights[k / 2] = weights(plane.width, k);
    for (std::size_t k = 0; k < places; k += 2) place_weights[k / 2] = weights(plane.place, k);
    for (unsigned k = 0; k < kStepClasses - 1; ++k) border[k] = _mm256_set1_epi8(static_cast<char>(plane.borders[k]));
    const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(plane.shift));
    const __m256i begin = _mm256_set1_epi16(static_cast<short>(plane.bias + 32)), ones = _mm256_set1_epi16(255);

    for (const std::size_t end = at + count; at < end; at += 32) {
        const std::uint8_t* const values = room.values.data() + at;
        __m256i low = _mm256_setzero_si256(), high = low;
        for (std::size_t k = 0; k < widths; k += 2) {
            const __m256i a = load(values + contexts.width[k]);
            const __m256i b = load(values + contexts.width[k + 1 < widths ? k + 1 : k]);
            low = _mm256_adds_epi16(low, _mm256_maddubs_epi16(_mm256_unpacklo_epi8(a, b), width_weights[k / 2]));
            high = _mm256_adds_epi16(high, _mm256_maddubs_epi16(_mm256_unpackhi_epi8(a, b), width_weights[k / 2]));
        }
        const __m256i sum = _mm256_packus_epi16(_mm256_srl_epi16(low, shift), _mm256_srl_epi16(high, shift));
        __m256i found = _mm256_setzero_si256();
        for (const __m256i& least : border)
            found = _mm256_sub_epi8(found, _mm256_cmpeq_epi8(_mm256_max_epu8(sum, least), sum));
        if (contexts.tail) found = _mm256_add_epi8(found, load(room.must.data() + at));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(room.classes.data() + at), found);
        if (!contexts.has_place) continue;

        const std::uint8_t* const symbols = room.symbols.data() + at;
        low = high = begin;
        for (std::size_t k = 0; k < places; k += 2) {
            const __m256i a = load(symbols + contexts.place[k]);
            const __m256i b = load(symbols + contexts.place[k + 1 < places ? k + 1 : k]);
            low = _mm256_add_epi16(low, _mm256_maddubs_epi16(_mm256_unpacklo_epi8(a, b), place_weights[k / 2]));
            high = _mm256_add_epi16(high, _mm256_maddubs_epi16(_mm256_unpackhi_epi8(a, b), place_weights[k / 2]));
        }
        low = _mm256_and_si256(_mm256_srli_epi16(low, 6), ones);
        high = _mm256_and_si256(_mm256_srli_epi16(high, 6), ones);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(room.places.data() + at), _mm256_packus_epi16(low, high));
    }
}

PERCODEC_AVX2 bool step_tokens_avx2(const StepTokens& run, unsigned lanes, std::uint32_t* states, WordReader& words,
                                    std::size_t* escapes) noexcept {
    const StepTables::Last* const lasts = run.plane.last.data();
    const StepTables::Found* const founds = run.plane.found.data();
    const __m256i low_bits = _mm256_set1_epi32((1 << kStepBits) - 1);
    alignas(32) std::uint32_t slots[kMaxLanes], found[kMaxLanes];
    std::size_t escaped = 0;
    for (std::size_t done = 0; done < run.count;) {
        if (!words.ready()) return false;
        const std::size_t many = run.count - done < lanes ? run.count - done : lanes, whole = many / 8 * 8;
        const std::uint8_t* next = words.next;
        for (std::size_t k = 0; k < whole; k += 8) {
            const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(states + k));
            _mm256_store_si256(reinterpret_cast<__m256i*>(slots + k), _mm256_and_si256(x, low_bits));
        }
        for (std::size_t k = 0; k < whole; ++k) {
            const std::size_t i = run.at(done + k);
            const unsigned row = run.rows[i];
            const __m256i slot = _mm256_set1_epi16(static_cast<short>(slots[k]));
            const __m256i last = _mm256_load_si256(reinterpret_cast<const __m256i*>(lasts + row));
            const auto above = static_cast<unsigned>(_mm256_movemask_epi8(_mm256_cmpgt_epi16(slot, last)));
            const unsigned token = _tzcnt_u32(~above) / 2;
            found[k] = founds[row].frequency_start[token];
            run.symbols[i] = static_cast<std::uint8_t>(run.place(i) + token - kHalf);
            escaped += token / kEscape;
        }
        for (std::size_t k = 0; k < whole; k += 8) {
            const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(states + k));
            const __m256i both = _mm256_load_si256(reinterpret_cast<const __m256i*>(found + k));
            const __m256i offset = _mm256_sub_epi32(_mm256_and_si256(x, low_bits), _mm256_srli_epi32(both, 16));
            const __m256i frequency = _mm256_and_si256(both, _mm256_set1_epi32(0xFFFF));
            const __m256i stepped =
                _mm256_add_epi32(_mm256_mullo_epi32(frequency, _mm256_srli_epi32(x, kStepBits)), offset);
            const __m256i short_of = _mm256_cmpeq_epi32(_mm256_srli_epi32(stepped, 16), _mm256_setzero_si256());
            const auto due = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(short_of)));
            const __m128i some = _mm_loadu_si128(reinterpret_cast<const __m128i*>(next));  // 16 bytes: see ready()
            const __m128i order = _mm_load_si128(reinterpret_cast<const __m128i*>(kExpand[due].data()));
            const __m256i spread = _mm256_cvtepu16_epi32(_mm_shuffle_epi8(some, order));
            next += 2 * static_cast<unsigned>(_mm_popcnt_u32(due));
            const __m256i refilled = _mm256_or_si256(_mm256_slli_epi32(stepped, 16), spread);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(states + k),
                                _mm256_blendv_epi8(stepped, refilled, short_of));
        }
        for (std::size_t k = whole; k < many; ++k) {
            const std::size_t i = run.at(done + k);
            const unsigned token = take_step(run.plane, run.rows[i], states[k], next);
            run.symbols[i] = static_cast<std::uint8_t>(run.place(i) + token - kHalf);
            escaped += token / kEscape;
        }
        words.next = next;
        done += many;
    }
    *escapes += escaped;
    return true;
}

}  // namespace percodec

#endif
