#include "model.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <future>
#include <set>

#include "error.h"
#include "kernels/weights_buffer.h"
#include "kv_state.h"
#include "llama_loading.h"
#include "load_mode.h"
#include "placement.h"
#include "vocabulary.h"

namespace inferno {

namespace {

std::vector<float> normalized(const std::vector<double> & values) {
    double square = 0;
    for (const double value : values) {
        square += value * value;
    }
    const double       scale = square > 0 ? 1 / std::sqrt(square) : 0;
    std::vector<float> result;
    result.reserve(values.size());
    for (const double value : values) {
        result.push_back(static_cast<float>(value * scale));
    }
    return result;
}

class LlamaModel : public Model {
public:
    LlamaModel(ModelPointer model, ModelInfo info, const EngineOptions & options)
        : info_(std::move(info)), options_(options), model_(std::move(model)),
          vocabulary_(llama_model_get_vocab(model_.get())) {
        if (info_.can_generate) {
            generation_ = make_context(model_.get(), generation_params(options_));
            batch_.reset(llama_batch_ext_init(generation_.get()));
            kv_state_ = std::make_unique<KvState>(generation_.get());
            llama_set_abort_callback(generation_.get(), should_abort, &abort_);
        } else {
            open_embedding();
        }
    }

    const ModelInfo &   info() const override { return info_; }
    const Vocabulary &  vocabulary() const override { return vocabulary_; }
    int32_t             context_size() const override { return options_.context_size; }
    int32_t             parallel() const override { return options_.parallel; }
    const llama_model * native() const override { return model_.get(); }

    // What the context takes, which a small context makes less than the option.
    int32_t batch_size() const override {
        return generation_ ? static_cast<int32_t>(llama_n_batch(generation_.get())) : options_.batch_size;
    }

    int32_t max_outputs() const override { return static_cast<int32_t>(generation_params(options_).n_outputs_max); }

    // Whole states leave out what has slid out of a window, and would need again when they are cut.
    bool can_trim() const override {
        return !llama_model_is_recurrent(model_.get()) && !llama_model_is_hybrid(model_.get()) &&
               (llama_model_n_swa(model_.get()) == 0 || (kv_state_ && kv_state_->by_rows()));
    }

    size_t token_bytes() const override { return kv_state_ ? kv_state_->token_bytes() : 0; }

    DecodeStatus decode(const Batch & batch) override {
        // More rows than a context takes would be an assertion inside llama.cpp, and the end of the process.
        if (!generation_ || batch.rows.size() > static_cast<size_t>(batch_size()) || !kv_state_->apply(batch.edits)) {
            return DecodeStatus::failed;
        }
        if (batch.rows.empty()) {
            return DecodeStatus::ok;
        }
        // One call for generated and prompt rows together. Two calls took as long (0.99 and 1.05 of one, with 64 and 256
        // prompt rows beside 8 generated ones): streams split them into the same passes either way. A gap in the slots
        // costs a pass (1.2 times the time); closing it with an idle slot's row gained 14% at 15 slots, 6% at 7, and
        // lost 13% at 2, so gaps are the scheduler's to avoid.
        llama_batch_ext_clear(batch_.get());
        for (const BatchRow & row : batch.rows) {
            add_row(batch_.get(), row.slot, row.position, row.token, row.want_logits);
        }
        const DecodeStatus status = status_of(process(generation_.get(), LLAMA_PROCESS_TYPE_DECODE, batch_.get()));
        if (status != DecodeStatus::ok) {
            find_ends(batch);
        }
        return status;
    }

    const float * logits(size_t row) override {
        return llama_get_logits_ith(generation_.get(), static_cast<int32_t>(row));
    }

    int32_t embed_batch_size() const override {
        const llama_context_params params = embedding_params(options_, info_);
        // A decoder keeps all inputs of a call in one cache; an encoder has none.
        return static_cast<int32_t>(is_encoder(info_) ? params.n_batch : std::min(params.n_batch, params.n_ctx));
    }

    std::vector<std::vector<float>> embed(const std::vector<std::vector<Token>> & inputs) override {
        open_embedding();
        return is_encoder(info_) ? encode(inputs) : pool_decoder(inputs);
    }

    void set_abort(bool abort) override {
        if (abort_.exchange(abort, std::memory_order_relaxed) != abort) {
            expect_abort(abort);
        }
    }

    MemoryEstimate memory() const override {
        MemoryEstimate result = memory_of(generation_ ? generation_.get() : embedding_.get());
        if (generation_ && embedding_) {
            result += memory_of(embedding_.get(), false);  // of the same weights
        }
        result.context_size = options_.context_size;
        result.gpu_layers   = options_.gpu_layers;
        result.store_bytes = token_bytes() > 0 ? store_bytes(options_) : 0;
        return result;
    }

private:
    static bool should_abort(void * flag) { return static_cast<std::atomic<bool> *>(flag)->load(std::memory_order_relaxed); }

    // llama.cpp's answer, with an exception (out of memory, mostly) turned into the code of a failed computation.
    int32_t process(llama_context * context, llama_process_type type, llama_batch_ext * batch) const {
        kernels::use_kernels(options_.cpu_kernels);
        try {
            return llama_process(context, type, batch);
        } catch (const std::exception &) {
            return -3;
        }
    }

    void find_ends(const Batch & batch) {
        std::set<Slot> slots;
        for (const BatchRow & row : batch.rows) {
            slots.insert(row.slot);
        }
        for (const Slot slot : slots) {
            kv_state_->find_end(slot);
        }
    }

    static DecodeStatus status_of(int32_t code) {
        switch (code) {
            case 0:
                return DecodeStatus::ok;
            case 1:
                return DecodeStatus::no_space;
            case 2:
                return DecodeStatus::aborted;
            default:
                return DecodeStatus::failed;
        }
    }

    static void add_row(llama_batch_ext * batch, Slot slot, Position position, Token token, bool output) {
        const int32_t i = llama_batch_ext_add_token(batch, slot, token);
        llama_batch_ext_set_pos(batch, i, &position);
        llama_batch_ext_set_output_logits(batch, i, output);
    }

    void open_embedding() {
        if (!embedding_) {
            embedding_ = make_context(model_.get(), embedding_params(options_, info_));
            embedding_batch_.reset(llama_batch_ext_init(embedding_.get()));
            llama_set_abort_callback(embedding_.get(), should_abort, &abort_);
        }
    }

    void run_embedding(llama_process_type type) {
        if (process(embedding_.get(), type, embedding_batch_.get()) != 0) {
            throw Error(ErrorCode::inference_failed, "The model failed to compute the embedding.");
        }
    }

    std::vector<double> row_of(const float * values) const {
        if (values == nullptr) {
            throw Error(ErrorCode::inference_failed, "The model gave no embedding.");
        }
        return std::vector<double>(values, values + llama_model_n_embd_out(model_.get()));
    }

    // One pass; the model pools.
    std::vector<std::vector<float>> encode(const std::vector<std::vector<Token>> & inputs) {
        size_t n_tokens = 0;
        for (const auto & input : inputs) {
            n_tokens += input.size();
        }
        if (n_tokens > static_cast<size_t>(embed_batch_size())) {  // llama.cpp would end the process
            throw Error(ErrorCode::inference_failed, "The text is too long to embed.");
        }
        llama_batch_ext_clear(embedding_batch_.get());
        for (size_t slot = 0; slot < inputs.size(); ++slot) {
            for (size_t i = 0; i < inputs[slot].size(); ++i) {
                add_row(embedding_batch_.get(), static_cast<Slot>(slot), static_cast<Position>(i), inputs[slot][i], true);
            }
        }
        run_embedding(LLAMA_PROCESS_TYPE_ENCODE);
        std::vector<std::vector<float>> result;
        for (size_t slot = 0; slot < inputs.size(); ++slot) {
            result.push_back(normalized(row_of(llama_get_embeddings_seq(embedding_.get(), static_cast<Slot>(slot)))));
        }
        return result;
    }

    // As many passes as the inputs need, one where tokens see those behind them; the mean over all tokens (or the last or
    // first one, if the model says so).
    std::vector<std::vector<float>> pool_decoder(const std::vector<std::vector<Token>> & inputs) {
        llama_memory_clear(llama_get_memory(embedding_.get()), false);
        std::vector<std::vector<double>> sums(inputs.size());
        std::vector<std::pair<size_t, size_t>> rows;  // (input, token) of the pass being filled
        llama_batch_ext_clear(embedding_batch_.get());
        const auto flush = [&] {
            run_embedding(LLAMA_PROCESS_TYPE_DECODE);
            for (size_t i = 0; i < rows.size(); ++i) {
                add_pooled(sums[rows[i].first], rows[i].second, inputs[rows[i].first].size(),
                           row_of(llama_get_embeddings_ith(embedding_.get(), static_cast<int32_t>(i))));
            }
            rows.clear();
            llama_batch_ext_clear(embedding_batch_.get());
        };
        for (size_t input = 0; input < inputs.size(); ++input) {
            for (size_t i = 0; i < inputs[input].size(); ++i) {
                add_row(embedding_batch_.get(), static_cast<Slot>(input), static_cast<Position>(i), inputs[input][i],
                        true);
                rows.emplace_back(input, i);
                if (rows.size() == static_cast<size_t>(embed_batch_size())) {
                    flush();
                }
            }
        }
        if (!rows.empty()) {
            flush();
        }
        std::vector<std::vector<float>> result;
        for (const auto & sum : sums) {
            result.push_back(normalized(sum));
        }
        return result;
    }

    void add_pooled(std::vector<double> & sum, size_t index, size_t n_tokens, std::vector<double> row) const {
        const bool takes = info_.pooling == "last"  ? index + 1 == n_tokens
                           : info_.pooling == "cls" ? index == 0
                                                    : true;
        if (!takes) {
            return;
        }
        if (sum.empty()) {
            sum = std::move(row);
            return;
        }
        for (size_t i = 0; i < sum.size(); ++i) {
            sum[i] += row[i];
        }
    }

    const ModelInfo     info_;
    const EngineOptions options_;
    std::atomic<bool>   abort_{false};

    ModelPointer    model_;
    LlamaVocabulary vocabulary_;
    ContextPointer  generation_;  // null for models that only embed
    BatchPointer    batch_;
    ContextPointer  embedding_;  // made when first needed
    BatchPointer    embedding_batch_;

    std::unique_ptr<KvState> kv_state_;  // of generation_
};

bool report_progress(float fraction, void * function) {
    return (*static_cast<const LoadProgress *>(function))(fraction);
}

void refuse(const char * why) {
    throw Error(ErrorCode::invalid_request, why, "model");
}

std::unique_ptr<Model> load_here(const std::string & path, const EngineOptions & options, const LoadProgress & progress) {
    validate(options);
    start_llama();
    ModelInfo           info      = inspect_model(path);
    if (!info.can_generate && !info.can_embed) {
        refuse("The model is of a kind that is not supported: it neither generates text nor embeds.");
    }
    EngineOptions   effective = effective_options(options, info);
    const Placement placement = place(path, effective, info);
    check_room(path, effective, info, placement);
    effective.gpu_layers      = placement.gpu_layers;
    llama_model_params params = model_params(effective, placement);
    // The default reads and does not map: weights that are repacked for the CPU would stay in memory twice (measured with
    // a Q4_0 file of 78 MB: 181 MB resident mapped, 123 MB read; no difference for Q4_1, which is not repacked). It is
    // also what estimate_memory() counts.
    params.load_mode            = prepare_load(effective.load_mode, info.size_bytes);
    bool                cancelled = false;
    const LoadProgress  watched   = [&](float fraction) {
        cancelled = progress && !progress(fraction);
        return !cancelled;
    };
    params.progress_callback           = report_progress;
    params.progress_callback_user_data = const_cast<LoadProgress *>(&watched);
    ModelPointer model(llama_model_load_from_file(path.c_str(), params));
    if (cancelled) {
        throw Error(ErrorCode::service_unavailable, "Loading the model was cancelled.");
    }
    if (!model) {
        refuse(locks_memory(effective.load_mode)
                   ? "The file is not a model that can be loaded, or its weights cannot be locked in memory."
                   : "The file is not a model that can be loaded.");
    }
    check_cache_types(model.get(), effective);
    if (llama_vocab_type(llama_model_get_vocab(model.get())) == LLAMA_VOCAB_TYPE_NONE) {
        refuse("The model has no vocabulary.");
    }
    if (llama_model_has_encoder(model.get()) || llama_model_is_diffusion(model.get())) {
        refuse("Encoder-decoder and diffusion models are not supported.");
    }
    return std::make_unique<LlamaModel>(std::move(model), std::move(info), effective);
}

}  // namespace

// What computes while a model is loaded leaves the thread a team of OpenMP threads, and once there are more of them in a
// process than processors libgomp stops spinning: every operation of every step then waits for a thread to wake. The
// teams of a thread end with it.
std::future<std::unique_ptr<Model>> start_loading(const std::string & path, const EngineOptions & options,
                                                  const LoadProgress & progress) {
    return std::async(std::launch::async, load_here, path, options, progress);
}

std::unique_ptr<Model> load_model(const std::string & path, const EngineOptions & options,
                                  const LoadProgress & progress) {
    return start_loading(path, options, progress).get();
}

}  // namespace inferno
