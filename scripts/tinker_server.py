"""SkyRL 0.4.0's Tinker-API server on CPU, with what its stock release gets wrong mended at start.

Runs in the server's own environment (see `tinker-server` beside this file), never in cai-base's. Each mend below says
what the stock server does and what the Tinker SDK 0.38.0 expects; all of them fail loudly on another release.
"""

import argparse
import ctypes
import inspect
import json
import os
import shutil
import signal
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typing_extensions

# Mend 1: its pydantic models use typing.TypedDict, which pydantic refuses before Python 3.12.
__import__("typing").TypedDict = typing_extensions.TypedDict

RELEASE = "0.4.0"
ROWS_TRAINED, ROWS_SAMPLED = 4, 16
"""Sequences that are computed together; fewer are padded to so many."""
READY = "engine.ready"
NO_CREDIT = "tml-no-credit"
SDK_PREFIX = "/api/v1/"
OPEN_TO_ALL = ("/api/v1/healthz", "/api/v1/telemetry")
IDS = r"^[a-zA-Z0-9_:-]+$"
"""Ids in paths; the stock pattern has no colon, which the ids of mend 5 have."""


def main() -> None:
    """`serve` runs the API and starts `engine`, which trains and samples, as its child."""
    if len(sys.argv) > 1 and sys.argv[1] == "engine":
        engine(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description="A Tinker-API server for tests.")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the base model to serve")
    parser.add_argument("--name", required=True, help="the name it is served under")
    parser.add_argument("--home", type=Path, required=True, help="where models, checkpoints and the database are kept")
    parser.add_argument("--port", type=int, required=True)
    # Every adapter's optimizer has moments for all slots at full rank, so both are dear.
    parser.add_argument("--max-rank", type=int, default=8)
    parser.add_argument("--max-adapters", type=int, default=32, help="adapters and sampler snapshots held at a time")
    given = parser.parse_args()
    serve(given)


def serve(given: argparse.Namespace) -> None:
    """Run the API until SIGTERM or Ctrl-C; says on standard output when the engine behind it is ready."""
    home = given.home.resolve()
    prepare_model(given.weights, home / "models" / given.name)
    # The server takes the model's name for a folder: from here, it is one.
    os.chdir(home / "models")
    import uvicorn
    from skyrl.tinker import api
    from skyrl.tinker.config import EngineConfig
    from skyrl.utils.log import get_uvicorn_log_config

    mend_api(api, home)
    api.app.state.engine_config = EngineConfig(
        base_model=given.name,
        backend="jax",
        backend_config={
            "max_lora_adapters": given.max_adapters,
            "max_lora_rank": given.max_rank,
            "sample_max_num_sequences": ROWS_SAMPLED,
            "train_micro_batch_size": ROWS_TRAINED,
        },
        checkpoints_base=home / "checkpoints",
        database_url=f"sqlite:///{home / 'server.db'}",
        # A client that was killed leaves its adapters behind; the SDK says every 10 s that it is there.
        session_timeout_sec=60,
        session_cleanup_interval_sec=5,
    )
    (home / READY).unlink(missing_ok=True)
    url = f"http://127.0.0.1:{given.port}"
    threading.Thread(target=announce, args=(home / READY, url), daemon=True).start()
    uvicorn.run(api.app, host="127.0.0.1", port=given.port, log_config=get_uvicorn_log_config())


def announce(ready: Path, url: str) -> None:
    """Say that the server is ready once the engine has left its mark."""
    while not ready.exists():
        time.sleep(0.1)
    print(f"ready {url}", flush=True)


def engine(arguments: list[str]) -> None:
    """The process behind the API. It dies with it, also when that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    ready, arguments = Path(arguments[0]), arguments[1:]
    from skyrl.backends import jax as backend
    from skyrl.tinker import engine as module

    mend_backend(backend)
    run = module.TinkerEngine.run

    def run_and_say_so(self: Any) -> None:
        ready.touch()
        run(self)

    module.TinkerEngine.run = run_and_say_so
    sys.argv = ["engine", *arguments]
    module.main()


def prepare_model(weights: Path, folder: Path) -> None:
    """A copy of the model that is computed in fp32, as cai-base's local engine computes it on a CPU."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in weights.iterdir():
        if file.suffix in (".json", ".safetensors"):
            shutil.copyfile(file, folder / file.name)
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2))


def edit(function: Any, module: Any, old: str, new: str) -> Any:
    """`function` with one line of its source replaced; refuses a release whose source is another."""
    source = inspect.getsource(function)
    if source.count(old) != 1:
        raise SystemExit(f"tinker-server: {function.__qualname__} is not that of skyrl {RELEASE}; install {RELEASE}")
    names: dict[str, Any] = {}
    exec(compile(textwrap.dedent(source.replace(old, new)), inspect.getfile(function), "exec"), vars(module), names)
    return names[function.__name__]


def mend_backend(backend: Any) -> None:
    """What the engine computes."""
    impl = backend.JaxBackendImpl

    # Mend 2: it divides a sequence's loss by the sum of its weights, and the gradient by the number of sequences. The
    # SDK's contract is the plain sum of -logprob * weight (and a custom loss sends weights of either sign).
    impl._create_loss_and_grad_fn = edit(
        impl._create_loss_and_grad_fn,
        backend,
        "per_seq_loss = per_token_losses.sum(axis=-1) / jnp.maximum(loss_mask.sum(axis=-1), 1e-9)",
        "per_seq_loss = per_token_losses.sum(axis=-1)",
    )
    backend.AccumulatedGradients.get_mean = edit(
        backend.AccumulatedGradients.get_mean, backend, "g[idx] / safe_count.astype(g.dtype)", "g[idx]"
    )

    # Mend 3: a sampler snapshot shares its model's slot, so sampling from the newest one reads the live weights, and
    # sampling from an older one overwrites them. Here every snapshot has a slot of its own, the least recently used
    # of which makes room (it is on disk and comes back).
    impl.load_sampler_weights = load_sampler_weights
    create, delete = impl.create_model, impl.delete_model

    def create_model(self: Any, *args: Any, **kwargs: Any) -> None:
        make_room(self, keep=set())
        create(self, *args, **kwargs)

    def delete_model(self: Any, model_id: str) -> None:
        for name in [name for name in snapshots(self) if name[0] == model_id]:
            drop_snapshot(self, name)
        delete(self, model_id)

    impl.create_model, impl.delete_model = create_model, delete_model

    # Mend 4: no `loss:sum`, and prompt log-probabilities without the first token's None.
    model_pass, sample = impl._model_pass, impl.sample

    def with_loss(self: Any, batch: Any, function: Any) -> Any:
        results = model_pass(self, batch, function)
        for request_id, _, start, end in batch.request_batch_slices:
            outputs = results[request_id].loss_fn_outputs
            results[request_id].metrics["loss:sum"] = -sum(
                weight * logprob
                for weights, output in zip(batch.all_token_weights[start:end], outputs, strict=True)
                for weight, logprob in zip(weights, output["logprobs"]["data"], strict=True)
            )
        return results

    def with_first_token(self: Any, prepared_batch: Any) -> Any:
        results = sample(self, prepared_batch)
        for output in results.values():
            if getattr(output, "prompt_logprobs", None) is not None:
                output.prompt_logprobs = [None, *output.prompt_logprobs]
        return results

    impl._model_pass, impl.sample = with_loss, with_first_token

    # Mend 7: it compiles anew, seconds each time, for every adapter's slot and for every number of sequences. Here a
    # slot is an argument like any other, and a batch that is not full is filled up with rows that weigh nothing.
    from flax import nnx

    for name in ("extract_adapter_state", "insert_adapter_state"):
        function = inspect.unwrap(getattr(backend, name))
        setattr(backend, name, nnx.jit(static_argnames=("rank",))(function))

    pad_to_fsdp = backend.pad_to_fsdp
    backend.pad_to_fsdp = lambda rows, shards: pad_to_fsdp(rows, shards * ROWS_TRAINED)


def snapshots(backend: Any) -> dict[tuple[str, str], Any]:
    """The sampler snapshots in memory, by model and checkpoint, least recently used first."""
    held: dict[tuple[str, str], Any] = backend.__dict__.setdefault("snapshots", {})
    return held


def drop_snapshot(backend: Any, name: tuple[str, str]) -> None:
    """Free a snapshot's slot."""
    del snapshots(backend)[name]
    del backend.models[":".join(name)]


def make_room(backend: Any, keep: set[tuple[str, str]]) -> None:
    """Free a slot if none is free and there is a snapshot that is not needed now."""
    if len(backend.models) < backend.config.max_lora_adapters - 1:  # slot 0 is the base model's
        return
    for name in snapshots(backend):
        if name not in keep:
            drop_snapshot(backend, name)
            return


def load_sampler_weights(self: Any, prepared_batch: Any) -> list[int]:
    """The slot of each request's snapshot, loaded where it is not yet; 0 is the base model."""
    from cloudpathlib import AnyPath
    from skyrl.backends import jax as backend

    wanted = list(
        zip(
            prepared_batch.all_model_ids,
            prepared_batch.all_checkpoint_ids,
            prepared_batch.all_checkpoint_paths,
            strict=True,
        )
    )
    keep = {(model, checkpoint) for model, checkpoint, _ in wanted if model}
    held = snapshots(self)
    slots = []
    for model, checkpoint, path in wanted:
        if not model:
            slots.append(0)
            continue
        name = (model, checkpoint)
        if name not in held:
            make_room(self, keep)
            used = {other.adapter_index for other in self.models.values()}
            free = set(range(1, self.config.max_lora_adapters)) - used
            if not free:
                raise ValueError(f"all {self.config.max_lora_adapters} adapter slots are in use")
            shape = self.models[model].lora_config
            with backend.jax.set_mesh(self.mesh):
                backend.init_lora_adapter(self.model, min(free), shape)
                backend.load_lora_checkpoint(self.model, shape, min(free), AnyPath(path))
            held[name] = backend.types.ModelMetadata(adapter_index=min(free), lora_config=shape)
            self.models[":".join(name)] = held[name]
        held[name] = held.pop(name)
        slots.append(held[name].adapter_index)
    return slots


def mend_api(api: Any, home: Path) -> None:
    """What the API answers."""
    from fastapi import Depends, HTTPException, Request
    from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
    from skyrl.tinker import types
    from skyrl.tinker.config import config_to_argv

    # Mend 1, continued: it starts the engine with the flags of a parent `uv run`.
    api._build_uv_run_cmd_engine = lambda _, config: [
        sys.executable,
        str(Path(__file__).resolve()),
        "engine",
        str(home / READY),
        *config_to_argv(config),
    ]
    session_of = Depends(api.get_session)
    mended = {
        "/api/v1/asample",
        "/api/v1/load_weights",
        "/api/v1/get_server_capabilities",
        "/api/v1/training_runs/{unique_id}/checkpoints/{checkpoint_id}/archive",
        "/api/v1/training_runs/{unique_id}/checkpoints/{checkpoint_id}/download",
    }
    routes = api.app.router.routes
    stock = {route.path for route in routes}
    if not mended <= stock:
        raise SystemExit(f"tinker-server: this is not skyrl {RELEASE}; install {RELEASE}")
    routes[:] = [route for route in routes if route.path not in mended]

    # Mend 4, continued: the SDK wants the ids of the sequences that are being drawn.
    @api.app.post("/api/v1/asample")
    async def asample(request: api.SampleRequest, req: Request, session: Any = session_of) -> Any:
        answer = await api.asample(request, req, session)
        ids = [f"{answer.request_id}:{number}" for number in range(request.num_samples)]
        return {**answer.model_dump(), "sample_sequence_ids": ids}

    # Mend 5: the SDK makes a training client from a state in one request, whose model id both sides derive from the
    # session; the stock schema wants a model that was created before.
    class LoadWeights(api.BaseModel):
        session_id: str
        model_seq_id: int
        path: str
        optimizer: bool = True

    @api.app.post("/api/v1/load_weights")
    async def load_weights(request: LoadWeights, req: Request, session: Any = session_of) -> Any:
        path = types.TinkerPath.parse(request.path)
        if path is None or path.kind != "weights":
            raise HTTPException(status_code=400, detail=f"{request.path} is not the path of a training checkpoint")
        await api.validate_checkpoint(req, path.primary_id, path.secondary_id, types.CheckpointType.TRAINING, session)
        source = await api.get_model(session, path.primary_id)
        model_id = f"{request.session_id}:train:{request.model_seq_id}"
        shape = types.LoraConfig.model_validate(source.lora_config)
        created = await api.create_future(
            session, types.RequestType.CREATE_MODEL, model_id, types.CreateModelInput(lora_config=shape)
        )
        if await session.get(api.ModelDB, model_id) is None:
            session.add(
                api.ModelDB(
                    model_id=model_id,
                    base_model=source.base_model,
                    lora_config=source.lora_config,
                    status="created",
                    request_id=created,
                    session_id=request.session_id,
                )
            )
        loaded = await api.create_future(
            session,
            types.RequestType.LOAD_WEIGHTS,
            model_id,
            types.LoadWeightsInput(
                source_model_id=path.primary_id, checkpoint_id=path.secondary_id, load_optimizer=request.optimizer
            ),
        )
        await session.commit()
        return {"future_id": str(loaded), "status": "pending", "request_id": str(loaded)}

    @api.app.post("/api/v1/sessions/{session_id}/finish")
    async def finish(session_id: str, session: Any = session_of) -> Any:
        query = api.select(api.ModelDB).where(api.ModelDB.session_id == session_id, api.ModelDB.status == "created")
        for model in (await session.exec(query)).all():
            model.status = "unloading"
            await api.create_future(session, types.RequestType.UNLOAD_MODEL, model.model_id, types.UnloadModelInput())
        await session.commit()
        return {}

    # Mend 6: it does not say how long a sequence may be.
    @api.app.get("/api/v1/get_server_capabilities")
    async def capabilities(request: Request) -> Any:
        name = request.app.state.engine_config.base_model
        length = json.loads(Path(name, "config.json").read_bytes())["max_position_embeddings"]
        return {"supported_models": [{"model_name": name, "max_context_length": length}]}

    # Mend 5, continued: archives of models whose ids have a colon.
    identifier = Annotated[str, api.fastapi.Path(pattern=IDS, max_length=api.ID_MAX_LENGTH)]
    folder = "/api/v1/training_runs/{unique_id}/checkpoints/{checkpoint_id}"

    @api.app.get(folder + "/archive")
    async def archive(
        request: Request, unique_id: identifier, checkpoint_id: identifier, session: Any = session_of
    ) -> Any:
        await api.validate_checkpoint(request, unique_id, checkpoint_id, types.CheckpointType.SAMPLER, session)
        return RedirectResponse(str(request.url_for("download", unique_id=unique_id, checkpoint_id=checkpoint_id)), 302)

    @api.app.get(folder + "/download")
    async def download(
        request: Request, unique_id: identifier, checkpoint_id: identifier, session: Any = session_of
    ) -> Any:
        path = await api.validate_checkpoint(request, unique_id, checkpoint_id, types.CheckpointType.SAMPLER, session)
        return StreamingResponse(api.download_file(path), media_type="application/octet-stream")

    # Not a mend: the stock server takes any key. With TINKER_API_KEY set it takes that one alone, so that a wrong key
    # can be tried, and it knows a key whose account is out of credit.
    key = os.environ.get("TINKER_API_KEY")

    @api.app.middleware("http")
    async def check_key(request: Request, call_next: Any) -> Any:
        asked, given = request.url.path, request.headers.get("X-API-Key")
        if given == NO_CREDIT and asked.endswith("/get_server_capabilities"):
            return JSONResponse({"detail": "this account has no credit left"}, status_code=402)
        closed = asked.startswith(SDK_PREFIX) and asked not in OPEN_TO_ALL
        if key and closed and given not in (key, NO_CREDIT):
            return JSONResponse({"detail": "invalid API key"}, status_code=401)
        return await call_next(request)


if __name__ == "__main__":
    main()
