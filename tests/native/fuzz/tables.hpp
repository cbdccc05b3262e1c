// What all targets code with: tables of one golden packet without contexts, one with, one of pairs, and two of steps.
#pragma once

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "percodec/entropy_model.hpp"

namespace fuzz {

using Bytes = std::vector<std::uint8_t>;

inline Bytes read(const std::string& name) {
    std::ifstream file(std::string(PERCODEC_GOLDEN) + "/" + name, std::ios::binary);
    if (!file) std::abort();
    return Bytes(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

inline percodec::LatentCoder coder(const std::string& name, std::uint32_t height, std::uint32_t width) {
    const Bytes data = read(name + ".pcem");
    return percodec::EntropyModel(data.data(), data.size()).coder(height, width);
}

inline const percodec::LatentCoder& plain() {
    static const percodec::LatentCoder made = coder("v1.0-order0-8x14x14-L6-auto", 14, 14);
    return made;
}

inline const percodec::LatentCoder& with_contexts() {
    static const percodec::LatentCoder made = coder("v1.0-contexts-5x7x70-L6-auto", 7, 70);
    return made;
}

inline const percodec::LatentCoder& of_pairs() {
    static const percodec::LatentCoder made = coder("v1.0-pairs-3x7x13-L6-lanes16", 7, 13);
    return made;
}

// `temporal`: in a stream.
inline const percodec::EntropyModel& model_of_steps(bool temporal) {
    const auto open = [](const char* name) {
        const Bytes data = read(name);
        return percodec::EntropyModel(data.data(), data.size());
    };
    static const percodec::EntropyModel alone = open("v1.0-steps-6x9x21-lanes16.pcem");
    static const percodec::EntropyModel predicted = open("v1.0-steps-temporal-6x9x21-lanes16.pcem");
    return temporal ? predicted : alone;
}

inline const percodec::LatentCoder& of_steps(bool temporal = false) {
    static const percodec::LatentCoder alone = model_of_steps(false).coder(9, 21);
    static const percodec::LatentCoder predicted = model_of_steps(true).coder(9, 21);
    return temporal ? predicted : alone;
}

// The least that vectors and their tails are in: most inputs, at a fifth of the time.
inline const percodec::LatentCoder& few_of_steps(bool temporal) {
    static const percodec::LatentCoder alone = model_of_steps(false).coder(2, 19);
    static const percodec::LatentCoder predicted = model_of_steps(true).coder(2, 19);
    return temporal ? predicted : alone;
}

}  // namespace fuzz
