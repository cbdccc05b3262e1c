#include "step_kernels.hpp"

namespace percodec {

StepContexts::StepContexts(const StepTables& tables, unsigned index, const StepRoom& room, Kernel kernel) noexcept
    : plane(tables.plane(index)),
      tail(index >= tables.heads() && index < tables.channels()),
      has_place(!plane.place.empty()),
      block_(step_block_plain) {
    const auto offset = [&](const StepTables::Near& n) {
        return static_cast<std::ptrdiff_t>(n.plane * room.size) + n.dy * static_cast<std::ptrdiff_t>(room.stride) +
               n.dx;
    };
    for (std::size_t k = 0; k < plane.width.size(); ++k) width[k] = offset(plane.width[k]);
    for (std::size_t k = 0; k < plane.place.size(); ++k) place[k] = offset(plane.place[k]);
    constant = static_cast<std::uint8_t>((plane.bias + 32) >> 6);
#if defined(__x86_64__)
    if (kernel_allowed(kernel, Kernel::avx2)) block_ = step_block_avx2;
#else
    static_cast<void>(kernel);
#endif
}

void step_block_plain(const StepContexts& contexts, StepRoom& room, std::size_t at, std::size_t count) noexcept {
    constexpr std::size_t kPart = 32;
    const StepTables::Plane& plane = contexts.plane;
    const auto shift = static_cast<int>(plane.shift);
    for (std::size_t done = 0; done < count; done += kPart, at += kPart) {
        std::int16_t sum[kPart] = {};
        for (std::size_t k = 0; k < plane.width.size(); ++k) {
            const std::uint8_t* const value = room.values.data() + at + contexts.width[k];
            const auto weight = static_cast<std::int16_t>(plane.width[k].weight);
            for (std::size_t i = 0; i < kPart; ++i) {
                const auto more = static_cast<std::int16_t>(sum[i] + value[i] * weight);  // below 65536: too much shows
                sum[i] = more < 0 ? std::int16_t{32767} : more;
            }
        }
        std::uint8_t small[kPart], found[kPart] = {};
        for (std::size_t i = 0; i < kPart; ++i) {
            const auto shifted = static_cast<std::int16_t>(static_cast<std::uint16_t>(sum[i]) >> shift);
            small[i] = static_cast<std::uint8_t>(shifted < 255 ? shifted : 255);
        }
        for (unsigned k = 0; k < kStepClasses - 1; ++k) {
            const std::uint8_t border = plane.borders[k];
            for (std::size_t i = 0; i < kPart; ++i) {
                const std::uint8_t high = small[i] > border ? small[i] : border;
                found[i] = static_cast<std::uint8_t>(found[i] - (high == small[i] ? 255 : 0));
            }
        }
        std::uint8_t* const rows = room.classes.data() + at;
        const std::uint8_t* const must = room.must.data() + at;
        for (std::size_t i = 0; i < kPart; ++i)
            rows[i] = static_cast<std::uint8_t>(found[i] + (contexts.tail ? must[i] : 0));
        if (!contexts.has_place) continue;
        std::uint16_t place[kPart];
        for (std::uint16_t& p : place) p = static_cast<std::uint16_t>(plane.bias + 32);
        for (std::size_t k = 0; k < plane.place.size(); ++k) {
            const std::uint8_t* const symbol = room.symbols.data() + at + contexts.place[k];
            const auto weight = static_cast<unsigned>(plane.place[k].weight);
            for (std::size_t i = 0; i < kPart; ++i)
                place[i] = static_cast<std::uint16_t>(place[i] + symbol[i] * weight);
        }
        for (std::size_t i = 0; i < kPart; ++i) room.places[at + i] = static_cast<std::uint8_t>(place[i] >> 6);
    }
}

bool step_tokens_plain(const StepTokens& run, unsigned lanes, std::uint32_t* states, WordReader& words,
                       std::size_t* escapes) noexcept {
    for (std::size_t done = 0; done < run.count;) {
        if (!words.ready()) return false;
        const std::size_t many = run.count - done < lanes ? run.count - done : lanes;
        const std::uint8_t* next = words.next;
        for (std::size_t lane = 0; lane < many; ++lane) {
            const std::size_t i = run.at(done + lane);
            const unsigned token = take_step(run.plane, run.rows[i], states[lane], next);
            run.symbols[i] = static_cast<std::uint8_t>(run.place(i) + token - kHalf);
            *escapes += token == kEscape ? 1u : 0u;
        }
        words.next = next;
        done += many;
    }
    return true;
}

PERCODEC_STEP_LOOPS(kStepLoopsPlain, )

const StepLoops& step_loops(Kernel kernel) noexcept {
#if defined(__x86_64__)
    if (kernel_allowed(kernel, Kernel::avx2)) return kStepLoopsAvx2;
#else
    static_cast<void>(kernel);
#endif
    return kStepLoopsPlain;
}

}  // namespace percodec
