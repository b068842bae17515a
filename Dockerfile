# docker build -t ristretto . && docker run --rm -v "$PWD:/work" ristretto quantize --model ...
FROM python:3.12-slim AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.12-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir /wheels/*.whl && rm -r /wheels
WORKDIR /work
ENTRYPOINT ["ristretto"]
CMD ["--help"]
