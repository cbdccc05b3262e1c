// Bytes that are there, or an error that says what ended too early.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace percodec {

class Reader {
  public:
    Reader(const std::uint8_t* data, std::size_t size, const char* short_of)
        : next_(data), left_(size), short_of_(short_of) {}
    const std::uint8_t* take(std::size_t bytes) {
        if (bytes > left_) throw std::invalid_argument(short_of_);
        const std::uint8_t* found = next_;
        next_ += bytes;
        left_ -= bytes;
        return found;
    }
    unsigned byte() { return *take(1); }
    unsigned word() {
        const std::uint8_t* p = take(2);
        return static_cast<unsigned>(p[0] | p[1] << 8);
    }
    std::size_t left() const { return left_; }

  private:
    const std::uint8_t* next_;
    std::size_t left_;
    const char* short_of_;
};

}  // namespace percodec
