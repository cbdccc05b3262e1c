// The tables of a bundle, its file entropy.pcem: what a vehicle process needs to read packets, without Python.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "percodec/packet.hpp"

namespace percodec {

// Immutable. BITSTREAM.md, "Entropy model", is the normative text.
class EntropyModel {
  public:
    // `data`: the whole file. Throws std::invalid_argument where it is not one, saying why.
    EntropyModel(const std::uint8_t* data, std::size_t size);

    // Reads a file of at most 16 MiB. Throws std::runtime_error where it cannot be read, std::invalid_argument as
    // above.
    static EntropyModel open(const std::string& path);

    unsigned profile() const noexcept { return profile_; }
    unsigned channels() const noexcept { return channels_; }
    // Of profiles 4 and 5 the most of any channel.
    unsigned levels() const noexcept { return levels_; }

    // Of one channel; `offset`: its symbol for 0 in profiles 4 and 5, in others 0.
    unsigned levels_of(unsigned channel) const noexcept { return ranges_.empty() ? levels_ : ranges_[channel].levels; }
    unsigned offset(unsigned channel) const noexcept { return ranges_.empty() ? 0 : ranges_[channel].offset; }

    // SHA-256 of the file; packets name its first eight bytes.
    const std::array<std::uint8_t, 32>& digest() const noexcept { return digest_; }
    std::uint64_t table_hash() const noexcept;

    // The coder of latents uint8 [channels, height, width]. Throws std::invalid_argument for a shape that cannot be.
    LatentCoder coder(std::uint32_t height, std::uint32_t width) const;

  private:
    unsigned profile_, channels_, levels_, contexts_;
    struct Range {
        unsigned levels, offset;
    };
    std::vector<Range> ranges_;  // of profiles 4 and 5
    std::vector<std::uint16_t> cdf_;
    std::vector<std::uint8_t> context_data_;
    std::array<std::uint8_t, 32> digest_;
};

}  // namespace percodec
