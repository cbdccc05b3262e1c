// Profiles 4 and 5, forward and back: first an encoder goes from plane to plane and writes down every step, then it
// codes that list from its end.
#include "payload.hpp"
#include "step_bands.hpp"

namespace percodec {
namespace {

// Writes down the steps of a whole latent.
class Steps {
  public:
    Steps(const StepTables& tables, StepRoom& room, Kernel kernel) noexcept
        : tables_(tables), room_(room), kernel_(kernel), loops_(step_loops(kernel)), next_(room.entries.get()) {}

    void write() noexcept {
        room_.runs.clear();
        for (unsigned p = 0; p < tables_.heads(); ++p) lines(p);
        if (tables_.planes() == tables_.channels()) return;
        lines(tables_.channels());
        Bands bands(tables_, room_, loops_);
        for (unsigned band = 0; band + 1 < tables_.bands().size(); ++band) {
            bands.enter(band);
            for (unsigned p = tables_.bands()[band]; p < tables_.bands()[band + 1]; ++p)
                run(p, StepContexts(tables_, p, room_, kernel_), bands.base(), room_.parts.data(), bands.count());
        }
    }

  private:
    void lines(unsigned p) noexcept {
        const StepContexts contexts(tables_, p, room_, kernel_);
        for (std::size_t y = 0; y < room_.height; ++y)
            run(p, contexts, room_.at(y, 0), room_.line.data(), room_.line.size());
    }

    void run(unsigned p, const StepContexts& contexts, std::size_t base, const StepPart* parts,
             std::size_t count) noexcept {
        StepDraft draft{next_, room_.escapes.data()};
        contexts.draft(room_, base, parts, count, draft);
        const auto tokens = static_cast<std::uint32_t>(draft.entries - next_);
        next_ = draft.entries;
        if (p == tables_.channels()) draft.escapes = room_.escapes.data();  // of extents 15 is just a number
        for (const std::uint8_t* e = room_.escapes.data(); e < draft.escapes; ++e) {
            *next_++ = static_cast<std::uint16_t>(contexts.plane.digits * kStepTokens + *e / 16);
            *next_++ = static_cast<std::uint16_t>((contexts.plane.digits + 1) * kStepTokens + *e % 16);
        }
        room_.runs.push_back({p, tokens, 2 * static_cast<std::uint32_t>(draft.escapes - room_.escapes.data())});
    }

    const StepTables& tables_;
    StepRoom& room_;
    const Kernel kernel_;
    const StepLoops& loops_;
    std::uint16_t* next_;
};

unsigned lanes_of(const StepTables& tables, const StepRoom& room) noexcept {
    std::uint64_t total = 0;
    unsigned lanes = 1;
    const std::uint16_t* entry = room.entries.get();
    for (const StepRoom::Run& run : room.runs) {
        const std::uint16_t* const cost = tables.plane(run.plane).cost.data();
        for (const std::uint16_t* const end = entry + run.tokens + run.digits; entry < end; ++entry)
            total += cost[*entry];
        lanes = lanes_for((total + 255) / 256 / 8, kStepLanes);
        if (lanes == kMaxLanes) break;  // more content cannot change the answer
    }
    return lanes;
}

std::uint8_t* encode_entries(const StepTables::Plane& plane, const std::uint16_t* entries, std::size_t count,
                             unsigned lanes, std::uint32_t* states, std::uint8_t* next) noexcept {
    const Tables::Encode* const encode = plane.encode.data();
    std::size_t lane = count % lanes;
    while (count > 0) {
        lane = (lane > 0 ? lane : lanes) - 1;
        --count;
        states[lane] = encode_symbol(encode[entries[count]], states[lane], next);
    }
    return next;
}

std::uint8_t* encode(const StepTables& tables, const StepRoom& room, unsigned lanes, Kernel kernel,
                     std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next) noexcept {
    auto* coded = encode_entries;
#if defined(__x86_64__)
    if (lanes % 8 == 0 && kernel_allowed(kernel, Kernel::avx2)) coded = step_encode_avx2;
#else
    static_cast<void>(kernel);
#endif
    std::size_t left = 0;
    for (const StepRoom::Run& run : room.runs) left += run.tokens + run.digits;
    if (static_cast<std::size_t>(next - begin) < 2 * left) return nullptr;
    const std::uint16_t* entries = room.entries.get() + left;
    for (std::size_t r = room.runs.size(); r-- > 0;) {
        const StepRoom::Run& run = room.runs[r];
        for (const std::uint32_t count : {run.digits, run.tokens}) {
            entries -= count;
            next = coded(tables.plane(run.plane), entries, count, lanes, states, next);
        }
    }
    return next;
}

}  // namespace

Status encode_payload(StepRooms& rooms, const std::uint8_t* symbols, unsigned* lanes, Kernel kernel,
                      std::uint8_t* begin, std::uint8_t* end, std::uint8_t** payload) noexcept {
    Taken taken(rooms);
    StepRoom* const room = taken.get();
    if (room == nullptr) return Status::no_space;
    fill_before(rooms.tables, symbols, *room, step_loops(kernel));
    if (!fill(rooms.tables, symbols, *room, step_loops(kernel), 0)) return Status::symbol_out_of_range;
    Steps(rooms.tables, *room, kernel).write();
    if (*lanes == 0) *lanes = lanes_of(rooms.tables, *room);
    const unsigned count = *lanes;
    return write_payload(count, kStepStateLow, begin, end, payload,
                         [&](std::uint32_t* states, std::uint8_t* from, std::uint8_t* next) {
                             return encode(rooms.tables, *room, count, kernel, states, from, next);
                         });
}

}  // namespace percodec
