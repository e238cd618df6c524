// Prefixes that have lost their slot: which ones host memory still has, in blocks of kBlockTokens tokens.
//
// A block is known by its tokens and by the block before it, so that texts with a common head share the blocks of the
// head, and a search costs the length of what it finds. The rows themselves are the model's to write and to read:
// blocks are handed out with edits, and live as long as an edit that names them. The least recently used block that no
// other follows goes first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "batch.h"

namespace inferno {

class PrefixStore {
public:
    using Blocks = std::vector<std::shared_ptr<SavedState>>;

    // At most `limit_bytes` of blocks whose tokens take `token_bytes` each; 0 of either turns the store off.
    PrefixStore(size_t limit_bytes, size_t token_bytes);
    ~PrefixStore();
    PrefixStore(const PrefixStore &)             = delete;
    PrefixStore & operator=(const PrefixStore &) = delete;

    // How many of tokens[0, limit) are there; whole blocks.
    Position longest(const std::vector<Token> & tokens, Position limit, uint64_t salt) const;
    // The blocks of tokens[0, n), used now. REQUIRES: longest() says they are there.
    Blocks fetch(const std::vector<Token> & tokens, Position n, uint64_t salt);

    struct Missing {
        Position from;
        Blocks   blocks;  // empty ones, for the tokens from `from` on
    };
    // Takes in what is missing of the whole blocks of tokens[0, n), as far as there is room.
    Missing add(const std::vector<Token> & tokens, Position n, uint64_t salt);

    // A block as it is kept elsewhere; `before` is the number of the block it follows in a list of them, -1 for none.
    struct Kept {
        int64_t                     before;
        uint64_t                    salt;
        std::vector<Token>          tokens;
        std::shared_ptr<SavedState> rows;
    };
    // All that have rows, the latest used first, none before the one it follows.
    std::vector<Kept> contents() const;
    // Takes such a list in as far as there is room; returns how many. REQUIRES: nothing is there; each has rows of
    // block_bytes().
    size_t put_back(const std::vector<Kept> & blocks);

    // Sets room for `n` tokens aside, which count as if they were here, or returns false: there is not so much.
    bool set_aside(Position n);
    void give_back(Position n);

    void   clear();
    bool   on() const { return capacity_ > 0; }
    size_t block_bytes() const { return block_bytes_; }
    size_t capacity() const { return capacity_; }  // blocks
    size_t bytes() const { return (blocks_.size() + n_aside_) * block_bytes_; }

private:
    struct Block;
    using Key = std::pair<const Block *, uint64_t>;  // the block before it (null: the first), and a hash
    struct HashKey {
        size_t operator()(const Key & key) const { return key.second ^ (reinterpret_cast<uintptr_t>(key.first) >> 4); }
    };
    using Index = std::unordered_multimap<Key, std::unique_ptr<Block>, HashKey>;

    Block * find(const Block * before, const Token * tokens, uint64_t salt) const;
    Block * insert(Block * before, const Token * tokens, uint64_t salt);
    static size_t depth(const Block * block);
    void    touch(Block * block);
    // False when nothing but what is in use now could go.
    bool    make_room();
    bool    has_room() const { return blocks_.size() + n_aside_ < capacity_; }

    const size_t                           block_bytes_;
    const size_t                           capacity_;  // blocks
    Index                                  blocks_;
    std::set<std::pair<uint64_t, Block *>> ends_;  // by last use; no other block follows these
    std::shared_ptr<SavedState>            spare_;  // of a block that went: memory to use again
    size_t                                 n_aside_ = 0;  // blocks
    uint64_t                               tick_    = 0;
};

}  // namespace inferno
