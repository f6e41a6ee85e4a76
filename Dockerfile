# Plaudit on the CPU, with the annotation app. `docker compose up` starts the app with PostgreSQL (compose.yaml).
FROM python:3.12-slim

# A user of its own: what serves a web page needs no rights on the machine.
RUN useradd --create-home --uid 1000 plaudit
WORKDIR /app

# PyTorch first: its usual package brings several gigabytes of CUDA, its index for a CPU does not. PyTorch's own page
# names that index; give it as `docker build --build-arg TORCH_INDEX=...`.
ARG TORCH_INDEX=""
COPY constraints.txt ./
RUN grep '^torch==' constraints.txt > torch.txt \
    && pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --requirement torch.txt

COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN PIP_CONSTRAINT=constraints.txt pip install --no-cache-dir '.[annotate,tensorboard]'

USER plaudit
WORKDIR /home/plaudit
VOLUME /home/plaudit/runs
EXPOSE 8000
ENTRYPOINT ["plaudit"]
CMD ["--help"]
