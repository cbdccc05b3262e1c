// The simple loops of profile 4, written once and compiled for each kind of processor.
#pragma once

#include <cstddef>
#include <cstdint>

#include "percodec/steps.hpp"

namespace percodec {

struct StepLoops {
    // |symbol - offset|
    void (*values)(const std::uint8_t* symbols, std::uint8_t offset, std::size_t count, std::uint8_t* values) noexcept;
    // The same, and where a value is not 0 nothing more must come.
    void (*settle)(const std::uint8_t* symbols, std::uint8_t offset, std::size_t count, std::uint8_t* values,
                   std::uint8_t* must) noexcept;
    // 16 where the extent is `last`, else 0.
    void (*mark)(const std::uint8_t* extents, std::uint8_t last, std::size_t count, std::uint8_t* must) noexcept;
    // Extents become `reached` where values are not 0.
    void (*reach)(const std::uint8_t* values, std::uint8_t reached, std::size_t count, std::uint8_t* extents) noexcept;
    std::uint8_t (*highest)(const std::uint8_t* symbols, std::size_t count) noexcept;
    // row * 16 + token; `places` null: `constant`.
    void (*draft)(const std::uint8_t* symbols, const std::uint8_t* rows, const std::uint8_t* places,
                  std::uint8_t constant, std::size_t count, std::uint16_t* out) noexcept;
};

extern const StepLoops kStepLoopsPlain;
#if defined(__x86_64__)
extern const StepLoops kStepLoopsAvx2;
#endif

const StepLoops& step_loops(Kernel kernel) noexcept;

// Their bodies.

#define PERCODEC_LOOP inline __attribute__((always_inline))

PERCODEC_LOOP void loop_values(const std::uint8_t* __restrict symbols, std::uint8_t offset, std::size_t count,
                               std::uint8_t* __restrict values) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint8_t s = symbols[i], high = s > offset ? s : offset, low = s > offset ? offset : s;
        values[i] = static_cast<std::uint8_t>(high - low);
    }
}

PERCODEC_LOOP void loop_settle(const std::uint8_t* __restrict symbols, std::uint8_t offset, std::size_t count,
                               std::uint8_t* __restrict values, std::uint8_t* __restrict must) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint8_t s = symbols[i], high = s > offset ? s : offset, low = s > offset ? offset : s;
        values[i] = static_cast<std::uint8_t>(high - low);
        must[i] = s == offset ? must[i] : std::uint8_t{0};
    }
}

PERCODEC_LOOP void loop_mark(const std::uint8_t* __restrict extents, std::uint8_t last, std::size_t count,
                             std::uint8_t* __restrict must) noexcept {
    for (std::size_t i = 0; i < count; ++i) must[i] = extents[i] == last ? std::uint8_t{kStepClasses} : std::uint8_t{0};
}

PERCODEC_LOOP void loop_reach(const std::uint8_t* __restrict values, std::uint8_t reached, std::size_t count,
                              std::uint8_t* __restrict extents) noexcept {
    for (std::size_t i = 0; i < count; ++i) extents[i] = values[i] ? reached : extents[i];
}

PERCODEC_LOOP std::uint8_t loop_highest(const std::uint8_t* symbols, std::size_t count) noexcept {
    std::uint8_t highest = 0;
    for (std::size_t i = 0; i < count; ++i) highest = symbols[i] > highest ? symbols[i] : highest;
    return highest;
}

template <typename PlaceOf>
PERCODEC_LOOP void loop_tokens(const std::uint8_t* __restrict symbols, const std::uint8_t* __restrict rows,
                               PlaceOf place, std::size_t count, std::uint16_t* __restrict out) noexcept {
    constexpr std::uint8_t kLast = kStepTokens - 1;
    for (std::size_t i = 0; i < count; ++i) {
        const auto shifted = static_cast<std::uint8_t>(symbols[i] - place(i) + kStepHalf);
        out[i] = static_cast<std::uint16_t>(rows[i] << 4 | (shifted < kLast ? shifted : kLast));
    }
}

PERCODEC_LOOP void loop_draft(const std::uint8_t* symbols, const std::uint8_t* rows, const std::uint8_t* places,
                              std::uint8_t constant, std::size_t count, std::uint16_t* out) noexcept {
    if (places) {
        loop_tokens(symbols, rows, [places](std::size_t i) { return places[i]; }, count, out);
    } else {
        loop_tokens(symbols, rows, [constant](std::size_t) { return constant; }, count, out);
    }
}

// All of them, as functions of a processor: `Target` says what they may use.
#define PERCODEC_STEP_LOOPS(Name, Target)                                                                  \
    namespace {                                                                                            \
    Target void values(const std::uint8_t* s, std::uint8_t o, std::size_t n, std::uint8_t* v) noexcept {   \
        loop_values(s, o, n, v);                                                                           \
    }                                                                                                      \
    Target void settle(const std::uint8_t* s, std::uint8_t o, std::size_t n, std::uint8_t* v,              \
                       std::uint8_t* m) noexcept {                                                         \
        loop_settle(s, o, n, v, m);                                                                        \
    }                                                                                                      \
    Target void mark(const std::uint8_t* e, std::uint8_t l, std::size_t n, std::uint8_t* m) noexcept {     \
        loop_mark(e, l, n, m);                                                                             \
    }                                                                                                      \
    Target void reach(const std::uint8_t* v, std::uint8_t r, std::size_t n, std::uint8_t* e) noexcept {    \
        loop_reach(v, r, n, e);                                                                            \
    }                                                                                                      \
    Target std::uint8_t highest(const std::uint8_t* s, std::size_t n) noexcept {                           \
        return loop_highest(s, n);                                                                         \
    }                                                                                                      \
    Target void draft(const std::uint8_t* s, const std::uint8_t* r, const std::uint8_t* p, std::uint8_t c, \
                      std::size_t n, std::uint16_t* o) noexcept {                                          \
        loop_draft(s, r, p, c, n, o);                                                                      \
    }                                                                                                      \
    }                                                                                                      \
    const StepLoops Name{values, settle, mark, reach, highest, draft};

}  // namespace percodec
