#include "perplexity.h"

#include <llama-ext.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "error.h"
#include "llama_loading.h"
#include "placement.h"
#include "model.h"
#include "vocabulary.h"

namespace inferno {

namespace {

// Rows of a pass, all of which give logits: 80 MB with a vocabulary of 150,000 tokens.
constexpr int32_t kPass = 128;

double negative_log_likelihood(const float * logits, int32_t n_vocab, Token token) {
    const double highest = static_cast<double>(*std::max_element(logits, logits + n_vocab));
    double       sum     = 0;
    for (int32_t i = 0; i < n_vocab; ++i) {
        sum += std::exp(static_cast<double>(logits[i]) - highest);
    }
    return highest + std::log(sum) - static_cast<double>(logits[token]);
}

ContextPointer open_context(llama_model * model, const EngineOptions & options) {
    llama_context_params params = generation_params(options);
    params.n_batch = params.n_ubatch = params.n_outputs_max = static_cast<uint32_t>(kPass);
    return make_context(model, params);
}

// Rows [begin, end) of `tokens`, which follow what the context holds.
void compute(llama_context * context, llama_batch_ext * batch, const std::vector<Token> & tokens, size_t begin, size_t end) {
    llama_batch_ext_clear(batch);
    for (size_t i = begin; i < end; ++i) {
        const auto    position = static_cast<llama_pos>(i);
        const int32_t row      = llama_batch_ext_add_token(batch, 0, tokens[i]);
        llama_batch_ext_set_pos(batch, row, &position);
        llama_batch_ext_set_output_logits(batch, row, true);
    }
    if (llama_process(context, LLAMA_PROCESS_TYPE_DECODE, batch) != 0) {
        throw Error(ErrorCode::inference_failed, "The model failed to compute the text.");
    }
}

// The sum over rows [begin, end), each of which foretells the token after its own.
double foretold(llama_context * context, int32_t n_vocab, const std::vector<Token> & tokens, size_t begin, size_t end) {
    double sum = 0;
    for (size_t i = begin; i < std::min(end, tokens.size() - 1); ++i) {
        sum += negative_log_likelihood(llama_get_logits_ith(context, static_cast<int32_t>(i - begin)), n_vocab, tokens[i + 1]);
    }
    return sum;
}

}  // namespace

Perplexity measure_perplexity(const std::string & path, const EngineOptions & options, const std::string & text) {
    validate(options);
    start_llama();
    const ModelInfo info = inspect_model(path);
    if (!info.can_generate) {
        throw Error(ErrorCode::invalid_request, "The model does not generate text.", "model");
    }
    EngineOptions effective = effective_options(options, info);
    effective.parallel      = 1;
    const Placement placement = place(path, effective, info);
    check_room(path, effective, info, placement);
    const ModelPointer model(llama_model_load_from_file(path.c_str(), model_params(effective, placement)));
    if (!model) {
        throw Error(ErrorCode::invalid_request, "The file is not a model that can be loaded.", "model");
    }
    const LlamaVocabulary vocabulary(llama_model_get_vocab(model.get()));
    std::vector<Token>    tokens = vocabulary.tokenize(text, true, false);
    tokens.resize(std::min(tokens.size(), static_cast<size_t>(effective.context_size)));
    if (tokens.size() < 2) {
        throw Error(ErrorCode::invalid_request, "The text must have at least two tokens.", "text");
    }
    const ContextPointer context = open_context(model.get(), effective);
    const BatchPointer   batch(llama_batch_ext_init(context.get()));
    double               sum = 0;
    for (size_t begin = 0; begin < tokens.size(); begin += kPass) {
        const size_t end = std::min(tokens.size(), begin + kPass);
        compute(context.get(), batch.get(), tokens, begin, end);
        sum += foretold(context.get(), vocabulary.size(), tokens, begin, end);
    }
    const auto n_foretold = static_cast<int32_t>(tokens.size()) - 1;
    return {sum / n_foretold, n_foretold};
}

}  // namespace inferno
