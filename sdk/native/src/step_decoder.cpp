// Profile 4: a decoder goes from plane to plane as the encoder did, and knows the same at each step.
#include <cstring>

#include "payload.hpp"
#include "step_bands.hpp"

namespace percodec {
namespace {

class Decoder {
  public:
    Decoder(const StepTables& tables, StepRoom& room, unsigned lanes, std::uint32_t* states, WordReader& words,
            Kernel kernel) noexcept
        : tables_(tables),
          room_(room),
          lanes_(lanes),
          states_(states),
          words_(words),
          kernel_(kernel),
          loops_(step_loops(kernel)) {}

    // False when the words ended early.
    bool run() noexcept {
        for (unsigned p = 0; p < tables_.heads(); ++p) {
            if (!lines(p)) return false;
        }
        if (tables_.planes() == tables_.channels()) return true;
        if (!lines(tables_.channels())) return false;
        Bands bands(tables_, room_, loops_);
        for (unsigned band = 0; band + 1 < tables_.bands().size(); ++band) {
            bands.enter(band);
            const std::size_t count =
                loops_.places(room_.parts.data(), bands.count(), bands.base(), room_.reached.data());
            for (unsigned p = tables_.bands()[band]; p < tables_.bands()[band + 1]; ++p) {
                if (!tail(p, bands, count)) return false;
            }
        }
        return true;
    }

  private:
    bool tokens(const StepTokens& run, std::size_t* escapes) noexcept {
#if defined(__x86_64__)
        if (lanes_ >= 8 && kernel_allowed(kernel_, Kernel::avx2))
            return step_tokens_avx2(run, lanes_, states_, words_, escapes);
#endif
        return step_tokens_plain(run, lanes_, states_, words_, escapes);
    }

    // Of a run's escapes: symbols that are 8 above their place.
    bool digits(const StepTokens& run, std::size_t escapes) noexcept {
        std::size_t k = 0;
        for (std::size_t done = 0; done < 2 * escapes;) {
            if (!words_.ready()) return false;
            const std::size_t many = 2 * escapes - done < lanes_ ? 2 * escapes - done : lanes_;
            const std::uint8_t* next = words_.next;
            for (std::size_t lane = 0; lane < many; ++lane, ++done) {
                const unsigned digit = take_step(run.plane, run.plane.digits + done % 2, states_[lane], next);
                if (done % 2 == 0) {
                    high_ = digit;
                    continue;
                }
                std::size_t i = run.at(k++);
                while (static_cast<std::uint8_t>(run.symbols[i] - run.place(i)) != kEscape - kHalf) i = run.at(k++);
                run.symbols[i] = static_cast<std::uint8_t>(run.place(i) + high_ * 16 + digit);
            }
            words_.next = next;
        }
        return true;
    }

    bool lines(unsigned p) noexcept {
        const StepContexts contexts(tables_, p, room_, kernel_);
        const bool extents = p == tables_.channels();
        std::uint8_t* const s = room_.symbols.data() + p * room_.size;
        const std::uint8_t* const places = contexts.has_place ? room_.places.data() : nullptr;
        for (std::size_t y = 0; y < room_.height; ++y) {
            const std::size_t at = room_.at(y, 0);
            contexts.find(room_, at, room_.line.data(), room_.line.size());
            std::size_t escapes = 0;
            const StepTokens run{
                contexts.plane, room_.classes.data(), places, contexts.constant, nullptr, at, room_.width, s};
            if (!tokens(run, &escapes) || (!extents && !digits(run, escapes))) return false;
            loops_.values(s + at, contexts.plane.offset, room_.width, room_.values.data() + p * room_.size + at);
        }
        return true;
    }

    bool tail(unsigned p, const Bands& bands, std::size_t count) noexcept {
        const StepContexts contexts(tables_, p, room_, kernel_);
        std::uint8_t* const s = room_.symbols.data() + p * room_.size;
        std::memset(s, contexts.plane.offset, room_.size);
        contexts.find(room_, bands.base(), room_.parts.data(), bands.count());
        const std::uint8_t* const places = contexts.has_place ? room_.places.data() : nullptr;
        std::size_t escapes = 0;
        const StepTokens run{
            contexts.plane, room_.classes.data(), places, contexts.constant, room_.reached.data(), 0, count, s};
        if (!tokens(run, &escapes) || !digits(run, escapes)) return false;
        bands.known(p, contexts.plane.offset);
        return true;
    }

    const StepTables& tables_;
    StepRoom& room_;
    const unsigned lanes_;
    std::uint32_t* const states_;
    WordReader& words_;
    const Kernel kernel_;
    const StepLoops& loops_;
    unsigned high_ = 0;  // the digit before
};

// What was decoded, out of the room. False where a symbol is no level, or an extent no number of bands.
bool copy_out(const StepTables& tables, StepRoom& room, const StepLoops& loops, std::uint8_t* symbols) noexcept {
    for (unsigned p = 0; p < tables.planes(); ++p) {
        std::uint8_t highest = 0;
        for (std::size_t y = 0; y < room.height; ++y) {
            const std::uint8_t* const s = room.symbols.data() + p * room.size + room.at(y, 0);
            // Extents end in a place that is not looked at any more.
            const bool extents = p == tables.channels();
            const std::uint8_t high = loops.copy(s, room.width, extents ? room.places.data() : symbols);
            highest = high > highest ? high : highest;
            if (!extents) symbols += room.width;
        }
        if (highest >= tables.plane(p).levels) return false;
    }
    return true;
}

}  // namespace

Status decode_payload(StepRooms& rooms, const std::uint8_t* payload, std::size_t size, unsigned lanes, Kernel kernel,
                      std::uint8_t* symbols) noexcept {
    Taken taken(rooms);
    StepRoom* const room = taken.get();
    if (room == nullptr) return Status::no_space;
    fill_before(rooms.tables, symbols, *room, step_loops(kernel));
    const Status status = read_payload(payload, size, lanes, kStepStateLow, 2 * std::size_t{lanes},
                                       [&](std::uint32_t* states, WordReader& words) {
                                           return Decoder(rooms.tables, *room, lanes, states, words, kernel).run();
                                       });
    if (status != Status::ok) return status;
    return copy_out(rooms.tables, *room, step_loops(kernel), symbols) ? Status::ok : Status::symbol_out_of_range;
}

}  // namespace percodec
