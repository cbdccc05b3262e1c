// Each token's row is compared with its slot in one step, and eight states at a time go on.
#include "shuffles.hpp"
#include "step_kernels.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstring>

#define PERCODEC_AVX2 __attribute__((target("avx2,bmi,popcnt")))

namespace percodec {
namespace {

PERCODEC_AVX2 inline __m128i shuffle(const Shuffles& table, unsigned mask) noexcept {
    return _mm_load_si128(reinterpret_cast<const __m128i*>(table[mask].data()));
}

// With what changes nothing during a run in registers: symbols are bytes, which might be anything to a compiler.
template <bool Reached, bool Places>
PERCODEC_AVX2 bool tokens(const StepTokens& run, std::size_t lanes, std::uint32_t* states, WordReader& words,
                          std::size_t* escapes) noexcept {
    const auto* const ends = reinterpret_cast<const std::uint8_t*>(run.plane.ends.data());
    const auto* const founds = reinterpret_cast<const std::uint8_t*>(run.plane.found.data());
    const std::uint8_t *const rows = run.rows, *const places = run.places;
    const std::uint32_t* const reached = run.reached;
    std::uint8_t* const symbols = run.symbols;
    const std::size_t first = run.first, count = run.count;
    const unsigned constant = run.constant - kHalf;
    const __m256i low_bits = _mm256_set1_epi32((1 << kStepBits) - 1);
    alignas(32) std::uint32_t slots[kMaxLanes], found[kMaxLanes];
    __m256i escaped = _mm256_setzero_si256();
    for (std::size_t done = 0; done < count;) {
        if (!words.ready()) return false;
        const std::size_t many = count - done < lanes ? count - done : lanes, whole = many / 8 * 8;
        const std::uint8_t* next = words.next;
        for (std::size_t k = 0; k < whole; k += 8) {
            const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(states + k));
            _mm256_store_si256(reinterpret_cast<__m256i*>(slots + k), _mm256_and_si256(x, low_bits));
        }
        for (std::size_t from = 0; from < whole; from += 8) {
#pragma GCC unroll 8
            for (std::size_t k = from; k < from + 8; ++k) {
                const std::size_t i = Reached ? reached[done + k] : first + done + k;
                const unsigned row = rows[i] * 32u;
                const __m256i slot = _mm256_set1_epi16(static_cast<short>(slots[k]));
                const __m256i end = _mm256_load_si256(reinterpret_cast<const __m256i*>(ends + row));
                const auto below = static_cast<unsigned>(_mm256_movemask_epi8(_mm256_cmpgt_epi16(end, slot)));
                const unsigned twice = _tzcnt_u32(below);  // the token
                std::memcpy(found + k, founds + 2 * std::size_t{row + twice}, 4);
                symbols[i] = static_cast<std::uint8_t>((Places ? places[i] - kHalf : constant) + twice / 2);
            }
        }
        for (std::size_t k = 0; k < whole; k += 8) {
            const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(states + k));
            const __m256i both = _mm256_load_si256(reinterpret_cast<const __m256i*>(found + k));
            const __m256i offset = _mm256_sub_epi32(_mm256_and_si256(x, low_bits), _mm256_srli_epi32(both, 16));
            const __m256i frequency = _mm256_and_si256(both, _mm256_set1_epi32(0xFFFF));
            const __m256i stepped =
                _mm256_add_epi32(_mm256_mullo_epi32(frequency, _mm256_srli_epi32(x, kStepBits)), offset);
            // Of the last token alone start and frequency add up to all slots.
            const __m256i sum = _mm256_add_epi32(frequency, _mm256_srli_epi32(both, 16));
            escaped = _mm256_sub_epi32(escaped, _mm256_cmpgt_epi32(sum, low_bits));
            const __m256i short_of = _mm256_cmpeq_epi32(_mm256_srli_epi32(stepped, 16), _mm256_setzero_si256());
            const auto due = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(short_of)));
            const __m128i some = _mm_loadu_si128(reinterpret_cast<const __m128i*>(next));  // 16 bytes: see ready()
            const __m256i spread = _mm256_cvtepu16_epi32(_mm_shuffle_epi8(some, shuffle(kExpand, due)));
            next += 2 * static_cast<unsigned>(_mm_popcnt_u32(due));
            const __m256i refilled = _mm256_or_si256(_mm256_slli_epi32(stepped, 16), spread);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(states + k),
                                _mm256_blendv_epi8(stepped, refilled, short_of));
        }
        for (std::size_t k = whole; k < many; ++k) {
            const std::size_t i = run.at(done + k);
            const unsigned token = take_step(run.plane, rows[i], states[k], next);
            symbols[i] = static_cast<std::uint8_t>(run.place(i) + token - kHalf);
            *escapes += token / kEscape;
        }
        words.next = next;
        done += many;
    }
    alignas(32) std::uint32_t each[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(each), escaped);
    for (const std::uint32_t some : each) *escapes += some;
    return true;
}

}  // namespace

bool step_tokens_avx2(const StepTokens& run, unsigned lanes, std::uint32_t* states, WordReader& words,
                      std::size_t* escapes) noexcept {
    if (run.reached == nullptr)
        return run.places ? tokens<false, true>(run, lanes, states, words, escapes)
                          : tokens<false, false>(run, lanes, states, words, escapes);
    return run.places ? tokens<true, true>(run, lanes, states, words, escapes)
                      : tokens<true, false>(run, lanes, states, words, escapes);
}

PERCODEC_AVX2 std::uint8_t* step_encode_avx2(const StepTables::Plane& plane, const std::uint16_t* entries,
                                             std::size_t count, unsigned lanes, std::uint32_t* states,
                                             std::uint8_t* next) noexcept {
    const StepTables::Divide* const divide = plane.divide.data();
    const __m256i low_half = _mm256_set1_epi32(0xFFFF);
    std::size_t lane = count % lanes;  // of the last entry, and one more
    while (count > 0) {
        if (lane == 0) lane = lanes;
        if (lane < 8 || count < 8 || lane % 8) {
            --lane;
            --count;
            states[lane] = encode_symbol(plane.encode[entries[count]], states[lane], next);
            continue;
        }
        lane -= 8;
        count -= 8;
        const auto at = [&](unsigned k) {
            long long both;
            std::memcpy(&both, divide + entries[count + k], sizeof(both));
            return both;
        };
        // Halves of four apart, so that one shuffle brings eight of a kind together, in order.
        const __m256i one = _mm256_set_epi64x(at(5), at(4), at(1), at(0)),
                      two = _mm256_set_epi64x(at(7), at(6), at(3), at(2));
        const __m256 a = _mm256_castsi256_ps(one), b = _mm256_castsi256_ps(two);
        const __m256i reciprocal = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
        const __m256i frequency_start = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xDD));
        const __m256i frequency = _mm256_and_si256(frequency_start, low_half);
        __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(states + lane));
        const __m256i stays = _mm256_cmpgt_epi32(frequency, _mm256_srli_epi32(x, 32 - kStepBits));
        const unsigned due = ~static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(stays))) & 0xFF;
        const __m256i low = _mm256_and_si256(x, low_half);
        const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(next - 16), _mm_shuffle_epi8(words, shuffle(kCompress, due)));
        next -= 2 * static_cast<unsigned>(_mm_popcnt_u32(due));
        x = _mm256_blendv_epi8(_mm256_srli_epi32(x, 16), x, stays);

        const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(x, reciprocal), 32);
        const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(reciprocal, 32));
        __m256i quotient = _mm256_blend_epi32(even, odd, 0xAA);  // or one less than it
        __m256i rest = _mm256_sub_epi32(x, _mm256_mullo_epi32(quotient, frequency));
        const __m256i right = _mm256_cmpgt_epi32(frequency, rest);
        quotient = _mm256_add_epi32(quotient, _mm256_andnot_si256(right, _mm256_set1_epi32(1)));
        rest = _mm256_sub_epi32(rest, _mm256_andnot_si256(right, frequency));
        const __m256i start = _mm256_srli_epi32(frequency_start, 16);
        const __m256i stepped = _mm256_add_epi32(_mm256_slli_epi32(quotient, kStepBits), _mm256_add_epi32(rest, start));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(states + lane), stepped);
    }
    return next;
}

}  // namespace percodec

#endif
