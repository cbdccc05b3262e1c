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
    // Copies symbols and returns the highest.
    std::uint8_t (*copy)(const std::uint8_t* symbols, std::size_t count, std::uint8_t* out) noexcept;
    // The same; makes their values, and where these are not 0 extents become `reached`.
    std::uint8_t (*fill)(const std::uint8_t* symbols, std::uint8_t offset, std::uint8_t reached, std::size_t count,
                         std::uint8_t* out, std::uint8_t* values, std::uint8_t* extents) noexcept;
    // Of `count` parts of extents, one after the other: those that reach `band` (counts from 0), and how many there
    // are.
    std::size_t (*reaching)(const std::uint8_t* extents, std::uint8_t band, std::size_t count,
                            StepRoom::Part* parts) noexcept;
    // Their symbols' places, and how many there are; may write kStepSlack more.
    std::size_t (*places)(const StepRoom::Part* parts, std::size_t count, std::size_t base,
                          std::uint32_t* out) noexcept;
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

PERCODEC_LOOP std::uint8_t loop_copy(const std::uint8_t* __restrict symbols, std::size_t count,
                                     std::uint8_t* __restrict out) noexcept {
    std::uint8_t highest = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint8_t s = symbols[i];
        highest = s > highest ? s : highest;
        out[i] = s;
    }
    return highest;
}

PERCODEC_LOOP std::uint8_t loop_fill(const std::uint8_t* __restrict symbols, std::uint8_t offset, std::uint8_t reached,
                                     std::size_t count, std::uint8_t* __restrict out, std::uint8_t* __restrict values,
                                     std::uint8_t* __restrict extents) noexcept {
    std::uint8_t highest = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint8_t s = symbols[i], high = s > offset ? s : offset, low = s > offset ? offset : s;
        highest = s > highest ? s : highest;
        out[i] = s;
        values[i] = static_cast<std::uint8_t>(high - low);
        extents[i] = s == offset ? extents[i] : reached;
    }
    return highest;
}

// All of them, as functions of a processor: `Target` says what they may use. `Reaching` and `Places` are its own.
#define PERCODEC_STEP_LOOPS(Name, Target, Reaching, Places)                                                         \
    namespace {                                                                                                     \
    Target void values(const std::uint8_t* s, std::uint8_t o, std::size_t n, std::uint8_t* v) noexcept {            \
        loop_values(s, o, n, v);                                                                                    \
    }                                                                                                               \
    Target void settle(const std::uint8_t* s, std::uint8_t o, std::size_t n, std::uint8_t* v,                       \
                       std::uint8_t* m) noexcept {                                                                  \
        loop_settle(s, o, n, v, m);                                                                                 \
    }                                                                                                               \
    Target void mark(const std::uint8_t* e, std::uint8_t l, std::size_t n, std::uint8_t* m) noexcept {              \
        loop_mark(e, l, n, m);                                                                                      \
    }                                                                                                               \
    Target std::uint8_t copy(const std::uint8_t* s, std::size_t n, std::uint8_t* c) noexcept {                      \
        return loop_copy(s, n, c);                                                                                  \
    }                                                                                                               \
    Target std::uint8_t fill(const std::uint8_t* s, std::uint8_t o, std::uint8_t r, std::size_t n, std::uint8_t* c, \
                             std::uint8_t* v, std::uint8_t* e) noexcept {                                           \
        return loop_fill(s, o, r, n, c, v, e);                                                                      \
    }                                                                                                               \
    }                                                                                                               \
    const StepLoops Name{values, settle, mark, copy, fill, Reaching, Places};

}  // namespace percodec
