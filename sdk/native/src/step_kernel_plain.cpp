#include <cstring>

#include "step_kernels.hpp"

namespace percodec {

StepContexts::StepContexts(const StepTables& tables, unsigned index, const StepRoom& room, Kernel kernel) noexcept
    : plane(tables.plane(index)),
      first(index * room.size),
      tail(index >= tables.heads() && index < tables.channels()),
      has_place(!plane.place.empty()),
      find_(step_find_plain),
      draft_(step_draft_plain) {
    const auto offset = [&](const StepTables::Near& n) {
        return static_cast<std::ptrdiff_t>(n.plane * room.size) + n.dy * static_cast<std::ptrdiff_t>(room.stride) +
               n.dx;
    };
    for (std::size_t k = 0; k < plane.width.size(); ++k) width[k] = offset(plane.width[k]);
    for (std::size_t k = 0; k < plane.place.size(); ++k) place[k] = offset(plane.place[k]);
    constant = index == tables.channels() ? kHalf : static_cast<std::uint8_t>((plane.bias + 32) >> 6);
#if defined(__x86_64__)
    if (kernel_allowed(kernel, Kernel::avx2)) find_ = step_find_avx2, draft_ = step_draft_avx2;
#else
    static_cast<void>(kernel);
#endif
}

namespace {

// Of thirty-two symbols from `at` on.
void find_part(const StepContexts& contexts, StepRoom& room, std::size_t at) noexcept {
    const StepTables::Plane& plane = contexts.plane;
    const auto shift = static_cast<int>(plane.shift);
    std::int16_t sum[kStepPart] = {};
    for (std::size_t k = 0; k < plane.width.size(); ++k) {
        const std::uint8_t* const value = room.values.data() + at + contexts.width[k];
        const auto weight = static_cast<std::int16_t>(plane.width[k].weight);
        for (std::size_t i = 0; i < kStepPart; ++i) {
            const auto more = static_cast<std::int16_t>(sum[i] + value[i] * weight);  // below 65536: too much shows
            sum[i] = more < 0 ? std::int16_t{32767} : more;
        }
    }
    std::uint8_t small[kStepPart], found[kStepPart] = {};
    for (std::size_t i = 0; i < kStepPart; ++i) {
        const auto shifted = static_cast<std::int16_t>(static_cast<std::uint16_t>(sum[i]) >> shift);
        small[i] = static_cast<std::uint8_t>(shifted < 255 ? shifted : 255);
    }
    for (unsigned k = 0; k < kStepClasses - 1; ++k) {
        const std::uint8_t border = plane.borders[k];
        for (std::size_t i = 0; i < kStepPart; ++i) {
            const std::uint8_t high = small[i] > border ? small[i] : border;
            found[i] = static_cast<std::uint8_t>(found[i] - (high == small[i] ? 255 : 0));
        }
    }
    std::uint8_t* const rows = room.classes.data() + at;
    const std::uint8_t* const must = room.must.data() + at;
    for (std::size_t i = 0; i < kStepPart; ++i)
        rows[i] = static_cast<std::uint8_t>(found[i] + (contexts.tail ? must[i] : 0));
    if (!contexts.has_place) return;
    std::uint16_t place[kStepPart];
    for (std::uint16_t& p : place) p = static_cast<std::uint16_t>(plane.bias + 32);
    for (std::size_t k = 0; k < plane.place.size(); ++k) {
        const std::uint8_t* const symbol = room.symbols.data() + at + contexts.place[k];
        const auto weight = static_cast<unsigned>(plane.place[k].weight);
        for (std::size_t i = 0; i < kStepPart; ++i)
            place[i] = static_cast<std::uint16_t>(place[i] + symbol[i] * weight);
    }
    for (std::size_t i = 0; i < kStepPart; ++i) room.places[at + i] = static_cast<std::uint8_t>(place[i] >> 6);
}

}  // namespace

void step_find_plain(const StepContexts& contexts, StepRoom& room, std::size_t base, const StepPart* parts,
                     std::size_t count) noexcept {
    for (std::size_t k = 0; k < count; ++k) find_part(contexts, room, base + parts[k].at);
}

void step_draft_plain(const StepContexts& contexts, StepRoom& room, std::size_t base, const StepPart* parts,
                      std::size_t count, StepDraft& draft) noexcept {
    const std::uint8_t* const symbols = room.symbols.data() + contexts.first;
    for (std::size_t k = 0; k < count; ++k) {
        const std::size_t at = base + parts[k].at;
        find_part(contexts, room, at);
        std::uint8_t distance[kStepPart], escaped = 0;
        std::uint16_t entries[kStepPart];
        if (!contexts.has_place) std::memset(room.places.data() + at, contexts.constant, kStepPart);
        for (std::size_t i = 0; i < kStepPart; ++i) {
            distance[i] = static_cast<std::uint8_t>(symbols[at + i] - room.places[at + i]);
            const auto shifted = static_cast<std::uint8_t>(distance[i] + kHalf);
            const auto token = static_cast<std::uint8_t>(shifted < kEscape ? shifted : kEscape);
            escaped |= token == kEscape ? std::uint8_t{1} : std::uint8_t{0};
            entries[i] = static_cast<std::uint16_t>(room.classes[at + i] << 4 | token);
        }
        if (contexts.tail) {
            for (std::size_t i = at; i < at + kStepPart; ++i)
                room.must[i] = symbols[i] == contexts.plane.offset ? room.must[i] : std::uint8_t{0};
        }
        const std::uint32_t mask = parts[k].mask;
        for (std::size_t i = 0; i < kStepPart; ++i) {
            *draft.entries = entries[i];
            draft.entries += mask >> i & 1;
        }
        for (std::size_t i = 0; escaped != 0 && i < kStepPart; ++i) {
            if ((mask >> i & 1) != 0 && entries[i] % kStepTokens == kEscape) *draft.escapes++ = distance[i];
        }
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

namespace {

std::size_t reaching_plain(const std::uint8_t* extents, std::uint8_t band, std::size_t count,
                           StepPart* parts) noexcept {
    std::size_t kept = 0;
    for (std::size_t k = 0; k < count; ++k) {
        std::uint32_t mask = 0;
        for (unsigned i = 0; i < kStepPart; ++i) mask |= (extents[k * kStepPart + i] > band ? 1u : 0u) << i;
        if (mask != 0) parts[kept++] = {static_cast<std::uint32_t>(k * kStepPart), mask};
    }
    return kept;
}

std::size_t places_plain(const StepPart* parts, std::size_t count, std::size_t base, std::uint32_t* out) noexcept {
    std::size_t kept = 0;
    for (std::size_t k = 0; k < count; ++k) {
        auto at = static_cast<std::uint32_t>(base + parts[k].at);
        for (std::uint32_t mask = parts[k].mask; mask != 0; mask >>= 1, ++at) {
            out[kept] = at;
            kept += mask & 1;
        }
    }
    return kept;
}

}  // namespace

PERCODEC_STEP_LOOPS(kStepLoopsPlain, , reaching_plain, places_plain)

const StepLoops& step_loops(Kernel kernel) noexcept {
#if defined(__x86_64__)
    if (kernel_allowed(kernel, Kernel::avx2)) return kStepLoopsAvx2;
#else
    static_cast<void>(kernel);
#endif
    return kStepLoopsPlain;
}

}  // namespace percodec
