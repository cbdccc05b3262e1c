// Profiles 4 and 5: what an encoder and a decoder do alike with a room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "percodec/steps.hpp"
#include "step_kernels.hpp"

namespace percodec {

// A room for as long as a call takes.
class Taken {
  public:
    explicit Taken(StepRooms& rooms) noexcept : rooms_(rooms), room_(rooms.take()) {}
    ~Taken() {
        if (room_) rooms_.give(std::move(room_));
    }
    Taken(const Taken&) = delete;
    Taken& operator=(const Taken&) = delete;
    StepRoom* get() noexcept { return room_.get(); }

  private:
    StepRooms& rooms_;
    std::unique_ptr<StepRoom> room_;
};

// Copies a latent into the room, its channel 0 to plane `first`, and makes its values and extents. Returns false where
// a symbol is no level.
inline bool fill(const StepTables& tables, const std::uint8_t* symbols, StepRoom& room, const StepLoops& loops,
                 unsigned first) noexcept {
    const unsigned channels = tables.channels();
    const std::size_t width = room.width;
    unsigned band = 0;  // counts from 1, as extents do; heads leave extents at 0
    bool levels = true;
    const bool banded = tables.planes() > channels;
    std::uint8_t* const extents = banded ? room.symbols.data() + (first + channels) * room.size : room.must.data();
    if (banded) std::memset(extents, 0, room.size);
    for (unsigned c = 0; c < channels; ++c) {
        const StepTables::Plane& plane = tables.plane(c);
        if (c == tables.bands()[band]) ++band;
        std::uint8_t highest = 0;
        for (std::size_t y = 0; y < room.height; ++y, symbols += width) {
            const std::size_t at = room.at(y, 0), to = (first + c) * room.size + at;
            const std::uint8_t high = loops.fill(symbols, plane.offset, static_cast<std::uint8_t>(band), width,
                                                 room.symbols.data() + to, room.values.data() + to, extents + at);
            highest = high > highest ? high : highest;
        }
        levels = levels && highest < plane.levels;
    }
    if (banded) std::memcpy(room.values.data() + (first + channels) * room.size, extents, room.size);
    return levels;
}

// The latent before, where tables look at it: `symbols` is behind it. What is no level there does no harm.
inline void fill_before(const StepTables& tables, const std::uint8_t* symbols, StepRoom& room,
                        const StepLoops& loops) noexcept {
    if (!tables.temporal()) return;
    fill(tables, symbols - std::size_t{tables.channels()} * room.height * room.width, room, loops, tables.before());
}

// Goes through the bands of a latent whose extents are known: keeps the places that the band reaches, and where
// something is still to come.
class Bands {
  public:
    Bands(const StepTables& tables, StepRoom& room, const StepLoops& loops) noexcept
        : room_(room), loops_(loops), extents_(room.symbols.data() + tables.channels() * room.size) {}

    // Band 0, 1, ...: room.must is set where the band is the last with something, and nothing of it is known yet.
    void enter(unsigned band) noexcept {
        count_ = loops_.reaching(extents_ + base(), static_cast<std::uint8_t>(band),
                                 room_.height * room_.stride / kStepPart, room_.parts.data());
        loops_.mark(extents_, static_cast<std::uint8_t>(band + 1), room_.size, room_.must.data());
    }

    // What the band reaches: so many of room.parts, and where they begin.
    std::size_t count() const noexcept { return count_; }
    std::size_t base() const noexcept { return room_.at(0, 0); }

    // The symbols of a tail are there: makes their values, and where one is not 0, nothing more must come.
    void known(unsigned channel, std::uint8_t offset) const noexcept {
        const std::size_t from = channel * room_.size;
        loops_.settle(room_.symbols.data() + from, offset, room_.size, room_.values.data() + from, room_.must.data());
    }

  private:
    StepRoom& room_;
    const StepLoops& loops_;
    const std::uint8_t* const extents_;
    std::size_t count_ = 0;
};

}  // namespace percodec
