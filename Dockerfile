# Plaudit on the CPU, with the annotation app. `docker compose up` starts the app with PostgreSQL (compose.yaml).
FROM python:3.12-slim

# A user of its own: what serves a web page needs no rights on the machine.
RUN useradd --create-home --uid 1000 plaudit
WORKDIR /app

# PyTorch first, from the index of CPU builds: the default one brings several gigabytes of CUDA.
COPY constraints.txt ./
RUN grep '^torch==' constraints.txt > torch.txt \
    && pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu --requirement torch.txt

COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN PIP_CONSTRAINT=constraints.txt pip install --no-cache-dir '.[annotate,tensorboard]'

USER plaudit
WORKDIR /home/plaudit
VOLUME /home/plaudit/runs
EXPOSE 8000
ENTRYPOINT ["plaudit"]
CMD ["--help"]
