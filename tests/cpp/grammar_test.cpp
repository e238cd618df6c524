#include "grammar.h"

#include <llama.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "compiled_grammar.h"
#include "error.h"
#include "fake_model.h"
#include "gbnf.h"
#include "json_schema.h"
#include "model.h"
#include "test.h"
#include "token_trie.h"

namespace inferno {
namespace {

// The vocabulary of the model that INFERNO_TEST_MODEL names; null when it names none.
const Vocabulary * real_vocabulary() {
    static const std::unique_ptr<Model> model = [] {
        const char *  path = std::getenv("INFERNO_TEST_MODEL");
        EngineOptions options;
        options.parallel     = 1;
        options.context_size = 64;
        return path == nullptr ? nullptr : load_model(path, options, {});
    }();
    if (model == nullptr) {
        std::puts("not run: INFERNO_TEST_MODEL is not set");
    }
    return model == nullptr ? nullptr : &model->vocabulary();
}

// Pieces of the test's own; the last token ends a text, and the one before it has no text.
class Pieces : public Vocabulary {
public:
    explicit Pieces(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {
        pieces_.insert(pieces_.end(), {"", ""});
        ends_ = {size() - 1};
    }

    int32_t                    size() const override { return static_cast<int32_t>(pieces_.size()); }
    std::string_view           piece(Token token) const override { return pieces_[static_cast<size_t>(token)]; }
    bool                       is_end(Token token) const override { return token == ends_[0]; }
    const std::vector<Token> & end_tokens() const override { return ends_; }
    std::vector<Token>         tokenize(std::string_view text, bool, bool) const override {
        std::vector<Token> result;
        for (Token token = 0; token < size(); ++token) {
            if ("<" + pieces_[static_cast<size_t>(token)] + ">" == text) {
                result.push_back(token);
            }
        }
        return result;
    }
    std::string detokenize(const std::vector<Token> &, bool) const override { return ""; }

private:
    std::vector<std::string> pieces_;
    std::vector<Token>       ends_;
};

SamplingParams with_grammar(const std::string & gbnf) {
    SamplingParams params;
    params.grammar = gbnf;
    return params;
}

SamplingParams with_schema(const std::string & schema) {
    SamplingParams params;
    params.json_schema.text = schema;
    return params;
}

std::vector<Token> allowed(TokenConstraint & constraint, const Vocabulary & vocabulary) {
    std::vector<float> logits(static_cast<size_t>(vocabulary.size()), 1.0f);
    constraint.mask(logits.data(), vocabulary.size());
    std::vector<Token> result;
    for (Token token = 0; token < vocabulary.size(); ++token) {
        if (logits[static_cast<size_t>(token)] == 1.0f) {
            result.push_back(token);
        }
    }
    return result;
}

// By their bytes, so that a failure can be read.
std::string text_of(const std::vector<Token> & tokens, const Vocabulary & vocabulary) {
    std::string result;
    for (const Token token : tokens) {
        result += result.empty() ? "" : " ";
        result += vocabulary.is_end(token) ? "END" : vocabulary.piece(token);
    }
    return result;
}

TEST(without_grammar_there_is_no_constraint) {
    const Pieces vocabulary({"a"});
    CHECK(Grammars(vocabulary).constraint(SamplingParams()) == nullptr);
}

TEST(tokens_are_allowed_by_their_bytes) {
    const Pieces vocabulary({"a", "ab", "abc", "b", "bc", "c", "d", "\xC3", "\xA9", "\xC3\xA9"});
    Grammars     grammars(vocabulary);
    const auto   constraint = grammars.constraint(with_grammar("root ::= \"ab\" [c\xC3\xA9]?"));
    const auto   now        = [&] { return text_of(allowed(*constraint, vocabulary), vocabulary); };
    CHECK_EQ(now(), std::string("a ab abc"));
    constraint->accept(0);
    CHECK_EQ(now(), std::string("b bc"));
    constraint->accept(3);
    CHECK_EQ(now(), std::string("c \xC3 \xC3\xA9 END"));
    CHECK(!constraint->complete());
    constraint->accept(7);
    CHECK_EQ(now(), std::string("\xA9"));
    constraint->accept(8);
    CHECK_EQ(now(), std::string("END"));
    CHECK(constraint->complete());
}

TEST(asking_for_one_token_agrees_with_the_mask) {
    const Pieces vocabulary({"a", "ab", "b", "ba", "c"});
    Grammars     grammars(vocabulary);
    const auto   constraint = grammars.constraint(with_grammar("root ::= (\"ab\" | \"c\")*"));
    for (const Token next : {0, 3, 2, 4}) {
        const std::vector<Token> masked = allowed(*constraint, vocabulary);
        for (Token token = 0; token < vocabulary.size(); ++token) {
            const bool in_mask = std::find(masked.begin(), masked.end(), token) != masked.end();
            CHECK_EQ(constraint->allows(token), in_mask);
        }
        constraint->accept(next);
    }
}

TEST(a_grammar_may_name_tokens) {
    const Pieces vocabulary({"a", "b", "think", "ab"});
    Grammars     grammars(vocabulary);
    const auto   constraint = grammars.constraint(with_grammar("root ::= <think> !<[1]>* <b> | \"a\" <[4]>"));
    const auto   now        = [&] { return text_of(allowed(*constraint, vocabulary), vocabulary); };
    CHECK_EQ(now(), std::string("a think"));
    constraint->accept(2);
    CHECK_EQ(now(), std::string("a b think ab "));  // and the token without text
    constraint->accept(3);
    constraint->accept(1);
    CHECK(constraint->complete());
    CHECK_THROWS(grammars.constraint(with_grammar("root ::= <none>")), Error);
    CHECK_THROWS(grammars.constraint(with_grammar("root ::= <[6]>")), Error);
    check_grammar(with_grammar("root ::= <none>"));  // nobody knows yet which model is meant
}

TEST(refusals_name_the_field) {
    const Pieces vocabulary({"a"});
    Grammars     grammars(vocabulary);
    const auto   field_of = [&](const SamplingParams & params) {
        std::string field;
        try {
            check_grammar(params);
            testing::fail(__FILE__, __LINE__, "accepted: " + params.grammar + params.json_schema.text);
        } catch (const Error & error) {
            field = error.field();
        }
        try {
            grammars.constraint(params);
            testing::fail(__FILE__, __LINE__, "made a constraint of: " + params.grammar + params.json_schema.text);
        } catch (const Error & error) {
            CHECK_EQ(error.field(), field);
        }
        return field;
    };
    SamplingParams both          = with_schema("{}");
    both.grammar                 = "root ::= \"a\"";
    const std::string in_a_cycle =
        R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}})";
    const std::string endless    = R"({"properties": {"a": {"$ref": "#"}}, "required": ["a"]})";
    CHECK_EQ(field_of(with_grammar("root ::= (")), std::string("grammar"));
    CHECK_EQ(field_of(with_grammar("root ::= ((\"a\"{0,2000}){0,2000}){0,2000}")), std::string("grammar"));
    CHECK_EQ(field_of(with_schema(R"({"not": {}})")), std::string("json_schema.not"));
    CHECK_EQ(field_of(with_schema(in_a_cycle)), std::string("json_schema"));
    CHECK_EQ(field_of(with_schema(endless)), std::string("json_schema"));
    CHECK_EQ(field_of(both), std::string("json_schema"));
    CHECK_EQ(grammars.count(), size_t{0});
}

TEST(equal_grammars_are_compiled_once_for_each_tenant) {
    const Pieces   vocabulary({"a"});
    Grammars       grammars(vocabulary);
    SamplingParams params = with_grammar("root ::= \"a\"+");
    grammars.constraint(params, 1);
    grammars.constraint(params, 1);
    CHECK_EQ(grammars.count(), size_t{1});
    grammars.constraint(params, 2);
    CHECK_EQ(grammars.count(), size_t{2});
}

TEST(a_tenant_with_many_grammars_pushes_out_its_own) {
    const Pieces vocabulary({"a"});
    Grammars     grammars(vocabulary);
    for (int i = 1; i <= 20; ++i) {
        grammars.constraint(with_grammar("root ::= \"a\"{" + std::to_string(i) + "}"), 1);
    }
    for (int i = 1; i <= 3000; ++i) {
        grammars.constraint(with_grammar("root ::= \"a\"{" + std::to_string(i) + "}"), 2);
    }
    CHECK(grammars.count() <= 128);
    CHECK(grammars.bytes() <= size_t{64} << 20);
    const size_t count = grammars.count();
    for (int i = 1; i <= 20; ++i) {
        grammars.constraint(with_grammar("root ::= \"a\"{" + std::to_string(i) + "}"), 1);
    }
    CHECK_EQ(grammars.count(), count);  // all twenty were still there
}

// Far more states than a grammar may keep; texts that are in the middle go on unharmed.
TEST(walked_ground_is_bounded_and_texts_survive_its_end) {
    const Pieces vocabulary({"a", "b"});
    const auto   trie = std::make_shared<const TokenTrie>(vocabulary);
    // Remembers the last twelve letters: 4096 states of many stacks each.
    CompiledGrammar           grammar(parse_gbnf("root ::= [ab]* \"a\" [ab]{12} \"x\"", nullptr), trie, vocabulary);
    CompiledGrammar::Position slow;
    grammar.accept(slow, 0);
    std::mt19937 random(5);
    for (int text = 0; text < 40; ++text) {
        CompiledGrammar::Position position;
        for (int i = 0; i < 3000; ++i) {
            grammar.accept(position, static_cast<Token>(random() % 2));
        }
    }
    CHECK(grammar.bytes() < size_t{20} << 20);
    CHECK(contains(*grammar.allowed(slow), 1));
    CHECK(!grammar.complete(slow));
}

TEST(an_ambiguous_grammar_ends_in_an_error_not_in_silence) {
    const Pieces vocabulary({"a"});
    Grammars     grammars(vocabulary);
    const auto   constraint = grammars.constraint(with_grammar("root ::= (\"a\"{1,300} | \"a\"{1,299}){1,300} \"x\""));
    const auto   use        = [&] {
        for (int i = 0; i < 400; ++i) {
            constraint->accept(0);
        }
    };
    CHECK_THROWS(use(), Error);
}

TEST(threads_may_share_a_grammar) {
    const Pieces vocabulary({"{\"", "name", "\": ", "\"", "x", "yz", "\"}", ", \"", "age", "1", "}", "\"age"});
    Grammars     grammars(vocabulary);
    const auto   params = with_schema(R"({"properties": {"name": {"type": "string"}, "age": {"type": "integer"}}})");
    std::vector<std::thread> threads;
    for (unsigned seed = 0; seed < 4; ++seed) {
        threads.emplace_back([&, seed] {
            std::mt19937 random(seed);
            for (int text = 0; text < 50; ++text) {
                const auto constraint = grammars.constraint(params, seed % 2);
                for (int i = 0; i < 20 && !constraint->complete(); ++i) {
                    const std::vector<Token> tokens = allowed(*constraint, vocabulary);
                    if (tokens.empty()) {
                        break;
                    }
                    constraint->accept(tokens[random() % tokens.size()]);
                }
            }
        });
    }
    for (std::thread & thread : threads) {
        thread.join();
    }
    CHECK_EQ(grammars.count(), size_t{2});
}

// ---- llama.cpp's grammar sampler as the oracle ------------------------------------------------------------------

struct FreeSampler {
    void operator()(llama_sampler * sampler) const { llama_sampler_free(sampler); }
};

class Oracle {
public:
    Oracle(const std::string & gbnf, const Vocabulary & vocabulary)
        : sampler_(llama_sampler_init_grammar(vocabulary.native(), gbnf.c_str(), "root")) {}

    bool valid() const { return sampler_ != nullptr; }

    std::vector<Token> allowed(const std::vector<Token> & of) {
        std::vector<llama_token_data> rows;
        for (const Token token : of) {
            rows.push_back({token, 1.0f, 0.0f});
        }
        llama_token_data_array array{rows.data(), rows.size(), -1, false};
        llama_sampler_apply(sampler_.get(), &array);
        std::vector<Token> result;
        for (const llama_token_data & row : rows) {
            if (std::isfinite(row.logit)) {
                result.push_back(row.id);
            }
        }
        return result;
    }

    void accept(Token token) { llama_sampler_accept(sampler_.get(), token); }

private:
    std::unique_ptr<llama_sampler, FreeSampler> sampler_;
};

// True for the beginning of a text in UTF-8.
bool begins_utf8(const std::string & text) {
    for (size_t i = 0; i < text.size();) {
        const auto byte = [&](size_t n) { return static_cast<unsigned char>(text[i + n]); };
        const auto lead = byte(0);
        const int  more = lead < 0x80 ? 0 : lead < 0xC2 ? -1 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF5 ? 3 : -1;
        for (int n = 1; n <= more && i + static_cast<size_t>(n) < text.size(); ++n) {
            const unsigned low  = n > 1 ? 0x80 : lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
            const unsigned high = n > 1 ? 0xBF : lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
            if (byte(static_cast<size_t>(n)) < low || byte(static_cast<size_t>(n)) > high) {
                return false;
            }
        }
        if (more < 0) {
            return false;
        }
        i += 1 + static_cast<size_t>(more);
    }
    return true;
}

// Where the two differ on purpose: llama.cpp reads control tokens by their spelling, though they have no text, and
// lets bytes pass that are no UTF-8.
bool comparable(const std::string & text, Token token, const Vocabulary & vocabulary) {
    const std::string_view piece = vocabulary.piece(token);
    return vocabulary.is_end(token) ||
           (!piece.empty() && piece.find('\0') == std::string_view::npos && begins_utf8(text + std::string(piece)));
}

// Follows a grammar at random and compares at each step; `n_others` tokens are looked at beside the allowed ones, all
// of the vocabulary when it is 0. Returns the number of steps.
int walk_with_oracle(const std::string & gbnf, const Vocabulary & vocabulary, std::mt19937 & random, int n_steps,
                     int n_others) {
    Oracle oracle(gbnf, vocabulary);
    if (!oracle.valid()) {
        testing::fail(__FILE__, __LINE__, "the oracle does not read " + gbnf);
        return 0;
    }
    Grammars    grammars(vocabulary);
    const auto  constraint = grammars.constraint(with_grammar(gbnf));
    std::string text;
    for (int step = 0; step < n_steps; ++step) {
        std::vector<Token> ours = allowed(*constraint, vocabulary);
        std::vector<Token> asked;
        if (n_others == 0) {
            for (Token token = 0; token < vocabulary.size(); ++token) {
                asked.push_back(token);
            }
        } else {
            const auto n_ours = std::distance(ours.begin(), ours.end());
            std::shuffle(ours.begin(), ours.end(), random);
            asked.assign(ours.begin(), ours.begin() + std::min<std::ptrdiff_t>(n_others, n_ours));
            for (int i = 0; i < n_others; ++i) {
                asked.push_back(static_cast<Token>(random() % static_cast<unsigned>(vocabulary.size())));
            }
            std::sort(asked.begin(), asked.end());
            asked.erase(std::unique(asked.begin(), asked.end()), asked.end());
        }
        asked.erase(std::remove_if(asked.begin(), asked.end(),
                                   [&](Token token) { return !comparable(text, token, vocabulary); }),
                    asked.end());
        std::sort(ours.begin(), ours.end());
        std::vector<Token> expected = oracle.allowed(asked);
        std::vector<Token> found;
        std::set_intersection(asked.begin(), asked.end(), ours.begin(), ours.end(), std::back_inserter(found));
        if (found != expected) {
            const std::string what = text_of(found, vocabulary) + "\nnot " + text_of(expected, vocabulary);
            testing::fail(__FILE__, __LINE__, gbnf + "\nafter '" + text + "': " + what);
            return step;
        }
        const bool only_ends = std::all_of(ours.begin(), ours.end(), [&](Token t) { return vocabulary.is_end(t); });
        CHECK_EQ(constraint->complete(), only_ends && !ours.empty());
        std::vector<Token> next;
        std::copy_if(ours.begin(), ours.end(), std::back_inserter(next),
                     [&](Token t) { return !vocabulary.is_end(t); });
        if (next.empty()) {
            return step;
        }
        const Token token = next[random() % next.size()];
        constraint->accept(token);
        oracle.accept(token);
        text += vocabulary.piece(token);
    }
    return n_steps;
}

// Random grammars: each rule refers to later ones, or to any one after a letter, and can end.
class RandomGrammar {
public:
    explicit RandomGrammar(std::mt19937 & random) : random_(random) {}

    std::string text() {
        n_rules_ = 1 + pick(4);
        std::string result;
        for (rule_ = 0; rule_ < n_rules_; ++rule_) {
            result += (rule_ == 0 ? "root" : "r" + std::to_string(rule_)) + " ::= " + literal();
            for (int i = pick(3); i > 0; --i) {
                result += " | " + sequence(2);
            }
            result += "\n";
        }
        return result;
    }

private:
    int pick(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }

    std::string letter() {
        static const std::vector<std::string> letters = {
            "a", "b", "e", "t", " ", "1", "{", "\\\"", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\\n"};
        return letters[static_cast<size_t>(pick(static_cast<int>(letters.size())))];
    }

    std::string literal() {
        std::string result;
        for (int i = 1 + pick(4); i > 0; --i) {
            result += letter();
        }
        return "\"" + result + "\"";
    }

    std::string sequence(int depth) {
        std::string result = literal();
        for (int i = pick(3); i > 0; --i) {
            result += " " + item(depth);
        }
        return result;
    }

    std::string item(int depth) {
        static const std::vector<std::string> classes = {
            "[a-z]", "[^a-e\\n]", ".", "[\xC3\xA0-\xC3\xBF ]", "[^\xC3\xA9\"]", "[0-9a]"};
        static const std::vector<std::string> repeats = {"", "", "*", "+", "?", "{2}", "{1,3}", "{2,}"};
        const std::string                     times   = repeats[static_cast<size_t>(pick(8))];
        switch (pick(depth > 0 ? 4 : 2)) {
            case 0:
                return literal() + times;
            case 1:
                return classes[static_cast<size_t>(pick(6))] + times;
            case 2:
                return "r" + std::to_string(1 + pick(n_rules_ > 1 ? n_rules_ - 1 : 1));
            default:
                return "(" + sequence(depth - 1) + " | " + sequence(depth - 1) + ")" + times;
        }
    }

    std::mt19937 & random_;
    int            n_rules_ = 1;
    int            rule_    = 0;
};

TEST(random_grammars_allow_what_llama_cpp_allows) {
    const Vocabulary * vocabulary = real_vocabulary();
    if (vocabulary == nullptr) {
        return;
    }
    std::mt19937 random(2024);
    int          n_steps = 0;
    for (int i = 0; i < 150; ++i) {
        const std::string gbnf = RandomGrammar(random).text() + (i % 2 == 0 ? "" : "# odd\n");
        if (gbnf.find("r1 ::=") == std::string::npos && gbnf.find("r1") != std::string::npos) {
            continue;  // the only rule refers to another
        }
        n_steps += walk_with_oracle(gbnf, *vocabulary, random, 8, 120);
    }
    CHECK(n_steps > 400);
}

TEST(schemas_allow_what_llama_cpp_allows_under_their_grammar) {
    const Vocabulary * vocabulary = real_vocabulary();
    if (vocabulary == nullptr) {
        return;
    }
    std::mt19937 random(7);
    for (const char * schema :
         {R"({"type": "object"})",
          R"({"properties": {"name": {"type": "string"}, "tags": {"items": {"enum": ["a", "bé"]}, "maxItems": 3}},
              "required": ["name"], "additionalProperties": {"type": "integer", "minimum": -5, "maximum": 1200}})",
          R"({"items": {"anyOf": [{"pattern": "^[A-Z]\\w{1,3}$"}, {"type": "number", "minimum": 0, "maximum": 2.5}]}})",
          R"({"properties": {"when": {"format": "date-time"}, "id": {"format": "uuid"}, "note": {"maxLength": 5}}})"}) {
        for (int i = 0; i < 4; ++i) {
            walk_with_oracle(json_schema_grammar(schema), *vocabulary, random, 15, 150);
        }
    }
}

TEST(the_whole_vocabulary_is_as_llama_cpp_has_it) {
    const Vocabulary * vocabulary = real_vocabulary();
    if (vocabulary == nullptr) {
        return;
    }
    std::mt19937      random(1);
    const std::string record =
        json_schema_grammar(R"({"properties": {"name": {"type": "string"}}, "required": ["name"]})");
    CHECK_EQ(walk_with_oracle(record, *vocabulary, random, 6, 0), 6);
    CHECK_EQ(walk_with_oracle("root ::= [^a]* \"\xE2\x82\xAC\" | .{200}", *vocabulary, random, 4, 0), 4);
}

}  // namespace
}  // namespace inferno
