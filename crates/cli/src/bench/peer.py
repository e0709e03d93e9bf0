"""Forward, backward and AdamW of transformers' model for a configuration, eager and compiled: batch, tokens, device and
config.json come as arguments."""
import json, statistics, sys, time
import torch, transformers
import torch.nn.functional as F

batch, tokens, device = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
cuda = device.startswith("cuda")
if cuda:
    torch.cuda.set_device(device)
# config.json writes infinity as {"__float__": "Infinity"}.
special = lambda fields: float(fields["__float__"]) if set(fields) == {"__float__"} else fields
fields = json.loads(sys.argv[4], object_hook=special)
config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
dtype = torch.bfloat16 if cuda else torch.float32
torch.manual_seed(0)
wait = torch.cuda.synchronize if cuda else lambda: None
print(f"PyTorch {torch.__version__}, transformers {transformers.__version__}, {dtype}, fused AdamW, by the clock:", flush=True)


def measure(compiled, steps):
    model = transformers.AutoModelForCausalLM.from_config(config).to(device=device, dtype=dtype)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    ids = torch.randint(config.vocab_size, (batch, tokens + 1), device=device)

    def loss_of(ids):
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits.float()
        return F.cross_entropy(logits.view(-1, logits.size(-1)), ids[:, 1:].reshape(-1))

    forward = torch.compile(loss_of) if compiled else loss_of
    passes, wholes = [], []
    for step in range(steps + 3):
        optimizer.zero_grad(set_to_none=True)
        wait()
        start = time.perf_counter()
        forward(ids).backward()
        wait()
        passes.append(time.perf_counter() - start)
        optimizer.step()
        wait()
        wholes.append(time.perf_counter() - start)
    memory = f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if cuda else ""
    first, whole = (1e3 * statistics.median(times[3:]) for times in (passes, wholes))
    print(f"  {'compiled' if compiled else 'eager'}: forward + backward {first:.2f} ms, whole step {whole:.2f} ms{memory}", flush=True)


for compiled in (False, True):
    try:
        measure(compiled, 10 if cuda else 3)
    except torch.OutOfMemoryError:
        print(f"  {'compiled' if compiled else 'eager'}: out of memory")
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
