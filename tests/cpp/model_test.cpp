// LlamaModel against real files: INFERNO_TEST_MODEL (a small chat model) and INFERNO_TEST_EMBED_MODEL (BERT-like).
#include "model.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <thread>

#include "error.h"
#include "test.h"

using namespace inferno;

namespace {

// The file's path, or "" after saying that the test did not run.
std::string model_path(const char * variable) {
    const char * path = std::getenv(variable);
    if (path == nullptr) {
        std::printf("not run: %s is not set\n", variable);
        return "";
    }
    return path;
}

EngineOptions small_options() {
    EngineOptions options;
    options.context_size = 512;
    options.parallel     = 4;
    return options;
}

// Loaded once for all tests; each begins by emptying the slots.
Model * generator() {
    static const std::string            path  = model_path("INFERNO_TEST_MODEL");
    static const std::unique_ptr<Model> model = path.empty() ? nullptr : load_model(path, small_options(), nullptr);
    if (model) {
        Batch empty;
        for (Slot slot = 0; slot < model->parallel(); ++slot) {
            empty.edits.push_back({CacheEdit::Kind::trim, slot, 0});
        }
        model->decode(empty);
    }
    return model.get();
}

Model * embedder() {
    static const std::string            path  = model_path("INFERNO_TEST_EMBED_MODEL");
    static const std::unique_ptr<Model> model = path.empty() ? nullptr : load_model(path, small_options(), nullptr);
    return model.get();
}

std::vector<Token> tokens_of(const Model & model, const char * text) {
    return model.vocabulary().tokenize(text, true, false);
}

// Rows for `tokens` from position `from` on; only the last one wants logits.
void add_rows(Batch & batch, Slot slot, const std::vector<Token> & tokens, size_t from = 0) {
    for (size_t i = from; i < tokens.size(); ++i) {
        batch.rows.push_back({slot, static_cast<Position>(i), tokens[i], i + 1 == tokens.size()});
    }
}

Token most_likely(Model & model, size_t row) {
    const float * logits = model.logits(row);
    return static_cast<Token>(std::max_element(logits, logits + model.vocabulary().size()) - logits);
}

// Extends every slot's tokens greedily, all slots in one batch. Slot s holds the first `held[s]` positions already.
void generate(Model & model, std::vector<std::vector<Token>> & slots, int n, std::vector<size_t> held = {},
              std::vector<CacheEdit> edits = {}) {
    held.resize(slots.size(), 0);
    for (int step = 0; step < n; ++step) {
        Batch               batch;
        std::vector<size_t> last;
        batch.edits.swap(edits);
        for (size_t slot = 0; slot < slots.size(); ++slot) {
            add_rows(batch, static_cast<Slot>(slot), slots[slot], held[slot]);
            held[slot] = slots[slot].size();
            last.push_back(batch.rows.size() - 1);
        }
        CHECK(model.decode(batch) == DecodeStatus::ok);
        for (size_t slot = 0; slot < slots.size(); ++slot) {
            slots[slot].push_back(most_likely(model, last[slot]));
        }
    }
}

std::vector<Token> generated(Model & model, const char * prompt, int n) {
    std::vector<std::vector<Token>> slots = {tokens_of(model, prompt)};
    generate(model, slots, n, {}, {{CacheEdit::Kind::trim, 0, 0}});
    return slots[0];
}

float cosine(const std::vector<float> & a, const std::vector<float> & b) {
    float sum = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        sum += a[i] * b[i];
    }
    return sum;
}

const char * const kFrance = "The capital of France is";
const char * const kCount  = "One, two, three, four,";

}  // namespace

TEST(greedy_text_is_sensible) {
    if (Model * model = generator()) {
        const std::string text = model->vocabulary().detokenize(generated(*model, kFrance, 8), false);
        CHECK(text.find("Paris") != std::string::npos);
    }
}

TEST(slots_together_give_what_each_gives_alone) {
    if (Model * model = generator()) {
        const auto france = generated(*model, kFrance, 8);
        const auto count  = generated(*model, kCount, 8);
        std::vector<std::vector<Token>> slots = {tokens_of(*model, kFrance), tokens_of(*model, kCount)};
        generate(*model, slots, 8, {}, {{CacheEdit::Kind::trim, 0, 0}});
        CHECK(slots[0] == france);
        CHECK(slots[1] == count);
    }
}

TEST(trimmed_tail_can_be_computed_again) {
    if (Model * model = generator()) {
        CHECK(model->can_trim());
        const auto france = generated(*model, kFrance, 8);
        auto       slots  = std::vector<std::vector<Token>>{tokens_of(*model, kFrance)};
        generate(*model, slots, 8, {3}, {{CacheEdit::Kind::trim, 0, 3}});
        CHECK(slots[0] == france);
    }
}

TEST(copied_prefix_continues_identically) {
    if (Model * model = generator()) {
        const auto france = generated(*model, kFrance, 8);
        const auto prompt = tokens_of(*model, kFrance);
        const auto kept   = static_cast<Position>(prompt.size()) - 1;

        std::vector<std::vector<Token>> slots = {tokens_of(*model, kCount), prompt};
        generate(*model, slots, 8, {0, prompt.size() - 1},
                 {{CacheEdit::Kind::copy, 1, kept, 0}, {CacheEdit::Kind::trim, 0, 0}});
        CHECK(slots[1] == france);
    }
}

TEST(saved_slot_continues_in_another_slot) {
    if (Model * model = generator()) {
        const auto france = generated(*model, kFrance, 8);
        const auto prompt = tokens_of(*model, kFrance);
        const auto kept   = static_cast<Position>(prompt.size()) - 1;
        const auto state  = std::make_shared<SavedState>();
        Batch      save;
        save.edits = {{CacheEdit::Kind::save, 0, 0, -1, {state}}};
        CHECK(model->decode(save) == DecodeStatus::ok);
        CHECK(state->size > 0);

        std::vector<std::vector<Token>> slots = {tokens_of(*model, kCount), prompt};
        generate(*model, slots, 8, {0, prompt.size() - 1},
                 {{CacheEdit::Kind::trim, 0, 0},
                  {CacheEdit::Kind::restore, 1, 0, -1, {state}},
                  {CacheEdit::Kind::trim, 1, kept}});
        CHECK(slots[1] == france);
    }
}

TEST(an_empty_state_is_refused) {
    if (Model * model = generator()) {
        generated(*model, kFrance, 8);
        const auto state = std::make_shared<SavedState>();
        Batch      save;
        save.edits = {{CacheEdit::Kind::save, 2, 0, -1, {state}}};
        CHECK(model->decode(save) == DecodeStatus::ok);
        CHECK_EQ(state->size, size_t{0});  // nothing was there

        Batch restore;
        restore.edits = {{CacheEdit::Kind::restore, 1, 0, -1, {state}}};
        CHECK(model->decode(restore) == DecodeStatus::failed);
    }
}

TEST(swapped_slots_continue_in_each_others_place) {
    if (Model * model = generator()) {
        const auto count  = generated(*model, kCount, 8);
        const auto france = generated(*model, kFrance, 8);
        auto       slots  = std::vector<std::vector<Token>>{tokens_of(*model, kFrance), tokens_of(*model, kCount)};
        generate(*model, slots, 3, {}, {{CacheEdit::Kind::trim, 0, 0}});
        std::swap(slots[0], slots[1]);
        generate(*model, slots, 5, {slots[0].size() - 1, slots[1].size() - 1}, {{CacheEdit::Kind::swap, 0, 0, 1}});
        CHECK(slots[0] == count);
        CHECK(slots[1] == france);
    }
}

TEST(abort_stops_a_decode_and_trim_repairs_it) {
    if (Model * model = generator()) {
        const auto france = generated(*model, kFrance, 4);
        Batch      batch;
        batch.edits.push_back({CacheEdit::Kind::trim, 0, 0});
        add_rows(batch, 0, tokens_of(*model, kFrance));
        model->set_abort(true);
        CHECK(model->decode(batch) == DecodeStatus::aborted);
        model->set_abort(false);
        CHECK(generated(*model, kFrance, 4) == france);
    }
}

// The pass of slot 2 is one that an abort leaves out.
TEST(after_an_abort_rows_lie_where_they_are_looked_for) {
    for (const size_t held : {63, 0}) {
        if (Model * model = generator()) {
            const std::vector<Token> text(kBlockTokens, 100);
            Batch                    before;
            add_rows(before, 0, text);
            add_rows(before, 2, {text.begin(), text.begin() + static_cast<std::ptrdiff_t>(held)});
            CHECK(model->decode(before) == DecodeStatus::ok);
            Batch aborted;
            aborted.rows = {{0, kBlockTokens, 100, true}, {2, static_cast<Position>(held), 100, true}};
            model->set_abort(true);
            CHECK(model->decode(aborted) == DecodeStatus::aborted);
            model->set_abort(false);
            Batch after;
            after.edits = {{CacheEdit::Kind::trim, 0, kBlockTokens},
                           {CacheEdit::Kind::trim, 2, static_cast<Position>(held)}};
            add_rows(after, 2, text, held);
            CHECK(model->decode(after) == DecodeStatus::ok);
            Batch stash;
            stash.edits.push_back({CacheEdit::Kind::stash, 2, 0, -1, {std::make_shared<SavedState>()}});
            CHECK(model->decode(stash) == DecodeStatus::ok);
        }
    }
}

TEST(full_slot_has_no_space) {
    if (Model * model = generator()) {
        const auto long_text = std::vector<Token>(static_cast<size_t>(model->context_size()), 100);
        Batch      batch;
        add_rows(batch, 0, long_text);
        CHECK(model->decode(batch) == DecodeStatus::ok);
        Batch next;
        next.rows.push_back({0, model->context_size(), 100, true});
        CHECK(model->decode(next) == DecodeStatus::no_space);
    }
}

TEST(pieces_add_up_to_the_text) {
    if (Model * model = generator()) {
        const Vocabulary & vocabulary = model->vocabulary();
        const std::string  text       = "Grüße, 世界! \xF0\x9F\x99\x82  two  spaces\n\tand <|im_end|>";
        const auto         tokens     = vocabulary.tokenize(text, false, false);
        std::string        joined;
        for (const Token token : tokens) {
            joined += vocabulary.piece(token);
        }
        CHECK_EQ(joined, text);
        CHECK_EQ(vocabulary.detokenize(tokens, false), text);
        CHECK_THROWS(vocabulary.detokenize({vocabulary.size()}, false), Error);
        CHECK_THROWS(vocabulary.detokenize({-1}, false), Error);
    }
}

TEST(control_tokens_have_no_text_unless_asked) {
    if (Model * model = generator()) {
        const Vocabulary & vocabulary = model->vocabulary();
        const auto         end        = vocabulary.tokenize("<|im_end|>", false, true);
        CHECK_EQ(end.size(), 1U);
        CHECK(vocabulary.is_end(end[0]));
        CHECK_EQ(vocabulary.piece(end[0]), "");
        CHECK_EQ(vocabulary.detokenize(end, true), "<|im_end|>");
        CHECK(vocabulary.tokenize("<|im_end|>", false, false).size() > 1);
        for (const Token token : vocabulary.end_tokens()) {
            CHECK(vocabulary.is_end(token));
        }
    }
}

TEST(no_token_has_more_bytes_of_a_text_than_said) {
    if (Model * model = generator()) {
        const Vocabulary & vocabulary = model->vocabulary();
        std::string        longest;
        for (Token token = 0; token < vocabulary.size(); ++token) {
            longest = std::max(longest, vocabulary.detokenize({token}, true), [](const auto & a, const auto & b) {
                return a.size() < b.size();
            });
        }
        CHECK_EQ(vocabulary.max_token_bytes(), longest.size());
        const std::string sign = "\xE2\x96\x81";  // SentencePiece's, for a space
        for (const std::string & text : {std::string(5000, ' '), longest + longest, sign + sign + "<|im_end|>"}) {
            CHECK(text.size() <= vocabulary.max_token_bytes() * vocabulary.tokenize(text, false, true).size());
        }
    }
    if (Model * model = embedder()) {  // its vocabulary drops spaces
        CHECK_EQ(model->vocabulary().max_token_bytes(), 0U);
    }
}

TEST(similar_sentences_have_similar_embeddings) {
    if (Model * model = embedder()) {
        CHECK(model->info().can_embed);
        CHECK(!model->info().can_generate);
        const std::vector<std::vector<Token>> inputs = {tokens_of(*model, "A man is eating food."),
                                                        tokens_of(*model, "Someone is having a meal."),
                                                        tokens_of(*model, "The stock market fell sharply today.")};
        const auto together = model->embed(inputs);
        CHECK_EQ(together.size(), inputs.size());
        CHECK_EQ(together[0].size(), static_cast<size_t>(model->info().n_embd));
        CHECK(cosine(together[0], together[1]) > cosine(together[0], together[2]) + 0.3F);
        for (size_t i = 0; i < inputs.size(); ++i) {
            CHECK(std::abs(cosine(together[i], together[i]) - 1) < 1e-3F);
            CHECK(cosine(together[i], model->embed({inputs[i]})[0]) > 1 - 1e-3F);
        }
    }
}

TEST(generating_model_embeds_too) {
    if (Model * model = generator()) {
        CHECK(model->info().can_embed);
        const auto before = generated(*model, kFrance, 4);
        const std::vector<std::vector<Token>> inputs = {tokens_of(*model, kFrance), tokens_of(*model, kCount)};
        const auto                            together = model->embed(inputs);
        for (size_t i = 0; i < inputs.size(); ++i) {
            CHECK(cosine(together[i], model->embed({inputs[i]})[0]) > 1 - 1e-3F);
        }
        CHECK_EQ(model->embed({std::vector<Token>(500, 100)})[0].size(), together[0].size());
        CHECK(generated(*model, kFrance, 4) == before);
    }
}

TEST(embed_batch_size_can_be_filled) {
    const std::string path = model_path("INFERNO_TEST_MODEL");
    if (!path.empty()) {
        EngineOptions options = small_options();
        options.context_size  = 256;
        const auto model      = load_model(path, options, nullptr);
        const auto half       = std::vector<Token>(static_cast<size_t>(model->embed_batch_size()) / 2, 100);
        CHECK_EQ(model->embed({half, half}).size(), 2U);
    }
}

TEST(inspection_reads_the_header_fast) {
    const std::string path = model_path("INFERNO_TEST_MODEL");
    if (!path.empty()) {
        const double    start = testing::processor_seconds();
        const ModelInfo info  = inspect_model(path);
        CHECK(testing::processor_seconds() - start < 0.2);
        CHECK(!info.architecture.empty());
        CHECK(info.n_vocab > 0 && info.n_embd > 0 && info.n_layer > 0 && info.context_train > 0);
        CHECK(info.n_params > 1000000 && info.size_bytes > 1000000);
        CHECK(!info.chat_template.empty());
        CHECK(info.can_generate && info.can_embed);
        CHECK_EQ(info.metadata.at("general.architecture"), info.architecture);
        CHECK_EQ(info.metadata.at("tokenizer.ggml.tokens").rfind("[str; ", 0), 0U);
    }
}

TEST(broken_files_are_refused) {
    const std::string path = model_path("INFERNO_TEST_EMBED_MODEL");
    if (path.empty()) {
        return;
    }
    std::ifstream whole(path, std::ios::binary);
    std::string   head(1 << 16, '\0');
    whole.read(head.data(), static_cast<std::streamsize>(head.size()));
    const std::string broken = "inferno_broken_model.gguf";
    for (const size_t length : {size_t{0}, size_t{3}, size_t{8}, size_t{100}, head.size()}) {
        std::ofstream(broken, std::ios::binary) << head.substr(0, length);
        CHECK_THROWS(inspect_model(broken), Error);
        CHECK_THROWS(load_model(broken, small_options(), nullptr), Error);
        CHECK_THROWS(estimate_memory(broken, small_options()), Error);
    }
    std::remove(broken.c_str());
    CHECK_THROWS(inspect_model("does-not-exist.gguf"), Error);
}

TEST(load_can_be_cancelled) {
    const std::string path = model_path("INFERNO_TEST_MODEL");
    if (!path.empty()) {
        try {
            load_model(path, small_options(), [](float) { return false; });
            CHECK(false);
        } catch (const Error & error) {
            CHECK(error.code() == ErrorCode::service_unavailable);
        }
    }
}

TEST(estimate_is_close_to_what_loading_takes) {
    for (const char * variable : {"INFERNO_TEST_MODEL", "INFERNO_TEST_EMBED_MODEL"}) {
        const std::string path = model_path(variable);
        if (path.empty()) {
            continue;
        }
        const auto estimate = static_cast<double>(estimate_memory(path, small_options()).total());
        const auto actual   = static_cast<double>(load_model(path, small_options(), nullptr)->memory().total());
        CHECK(std::abs(estimate - actual) < 0.15 * actual);
    }
}
