// What a prefix store holds, in a file that outlives the process: read when the engine starts, written when it ends.
//
// A file is for one model and for the options that its rows depend on, and is named by them. One that is of another, is
// not whole, has been changed or belongs to somebody else is left alone. It holds the tokens of texts, so nobody but its
// owner may read it.
//
// In the machine's own byte order: kMagic, the identity, bytes of a block's rows, number of blocks; then for each block, the
// latest used first and none before the one it follows: which that is (-1: none), its salt, its tokens, its rows; then
// XXH64 of all that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "params.h"
#include "prefix_store.h"

namespace inferno {

class PrefixFile {
public:
    // `identity` stands for all that rows depend on. REQUIRES: the directory is there.
    PrefixFile(const std::string & directory, uint64_t identity);

    // Adds what the file has to the store, as far as there is room. Returns how many blocks.
    size_t load(PrefixStore & store) const;
    // Puts another file in its place at once, unless there is nothing to keep; false when that cannot be done.
    bool save(const PrefixStore & store) const;

    const std::string & path() const { return path_; }

private:
    const std::string path_;
    const uint64_t    identity_;
};

// Makes the directory that the options name, and says nothing when they name none. Throws Error(invalid_request, field
// "prefix_store_path") when it cannot be made or nothing would be kept in it.
void prepare_prefix_directory(const EngineOptions & options);

// Null when the options name no directory. Reads the whole model file.
std::unique_ptr<PrefixFile> open_prefix_file(const std::string & model_path, const EngineOptions & options);

}  // namespace inferno
