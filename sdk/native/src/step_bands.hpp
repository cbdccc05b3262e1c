// Profile 4: what an encoder and a decoder do alike with a room.
#pragma once

#include <cstddef>
#include <cstdint>
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

// Goes through the bands of a latent whose extents are known: keeps the places that the band reaches, and where
// something is still to come.
class Bands {
  public:
    Bands(const StepTables& tables, StepRoom& room, const StepLoops& loops) noexcept
        : room_(room), loops_(loops), extents_(room.symbols.data() + tables.channels() * room.size) {}

    // Band 0, 1, ...: room.must is set where the band is the last with something, and nothing of it is known yet.
    std::size_t enter(unsigned band) noexcept {
        std::uint32_t* const reached = room_.reached.data();
        const std::uint8_t* const extents = extents_;
        std::size_t kept = 0;
        if (band == 0) {
            for (std::size_t y = 0; y < room_.height; ++y) {
                const auto line = static_cast<std::uint32_t>(room_.at(y, 0));
                for (std::uint32_t at = line; at < line + room_.width; ++at) {
                    reached[kept] = at;
                    kept += extents[at] > 0 ? 1u : 0u;
                }
            }
        } else {
            for (std::size_t k = 0; k < count_; ++k) {
                const std::uint32_t at = reached[k];
                reached[kept] = at;
                kept += extents[at] > band ? 1u : 0u;
            }
        }
        count_ = kept;
        loops_.mark(extents, static_cast<std::uint8_t>(band + 1), room_.size, room_.must.data());
        find_blocks();
        return kept;
    }

    // Rows and places of all that is reached. `then` is told of each block.
    template <typename Then>
    void contexts(const StepContexts& contexts, Then then) const noexcept {
        for (const StepRoom::Block& block : room_.blocks) {
            contexts.block(room_, block.at, block.count);
            then(block.at, block.count);
        }
    }

    // The symbols of a tail are there: makes their values, and where one is not 0, nothing more must come.
    void known(unsigned channel, std::uint8_t offset) const noexcept {
        const std::size_t from = channel * room_.size;
        loops_.settle(room_.symbols.data() + from, offset, room_.size, room_.values.data() + from, room_.must.data());
    }

  private:
    // As few blocks as reach everything, in whole vectors.
    void find_blocks() noexcept {
        constexpr std::uint32_t kPart = 32;
        const std::uint32_t* const reached = room_.reached.data();
        room_.blocks.clear();
        if (count_ > room_.height * room_.width / 4) {
            const std::size_t first = room_.at(0, 0);
            room_.blocks.push_back({static_cast<std::uint32_t>(first),
                                    static_cast<std::uint32_t>(room_.at(room_.height - 1, room_.width) - first)});
            return;
        }
        for (std::size_t k = 0; k < count_;) {
            const std::uint32_t first = reached[k];
            std::uint32_t end = first + kPart;
            for (++k; k < count_ && reached[k] < end + kPart; ++k) end += reached[k] >= end ? kPart : 0;
            room_.blocks.push_back({first, end - first});
        }
    }

    StepRoom& room_;
    const StepLoops& loops_;
    const std::uint8_t* const extents_;
    std::size_t count_ = 0;
};

}  // namespace percodec
