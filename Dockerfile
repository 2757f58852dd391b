# docker build -t spikecrsae .
# docker run --rm --read-only --tmpfs /tmp --cap-drop ALL -v "$PWD:/data" --user "$(id -u):$(id -g)" spikecrsae sort recording.h5
FROM python:3.11-slim

# One more place where pip looks for torch: the CPU index or a CUDA index named on pytorch.org.
# Empty: pip's usual place only, whose Linux build carries CUDA (it also runs without a GPU, and is far larger).
ARG TORCH_INDEX=""

WORKDIR /opt/spikecrsae
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
COPY spikecrsae ./spikecrsae
RUN pip install --no-cache-dir -c constraints.txt . \
 && useradd --create-home --uid 1000 spikecrsae

# Whatever is kept besides results goes where any user may write, also where the root file system is read-only.
ENV HOME=/tmp NUMBA_CACHE_DIR=/tmp/numba MPLCONFIGDIR=/tmp/matplotlib PYTHONDONTWRITEBYTECODE=1
USER spikecrsae
WORKDIR /data
ENTRYPOINT ["spikecrsae"]
