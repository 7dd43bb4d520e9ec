# Envoy with both builds of Inlet, for the EnvoyProxy. From the root of the repository: docker build -f envoy/gateway/images/envoy.Dockerfile -t inlet-envoy:dev .
# The commands are those of `make build`. The module is built with the C library of the Debian that Envoy's image comes from.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY . .
RUN CGO_ENABLED=1 go build -buildmode=c-shared -trimpath -ldflags='-s -w -X runtime.godebugDefault=cgocheck=0' -o /inlet/libinlet.so ./cmd/bundle-module
RUN GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags='-s -w' -o /inlet/inlet.wasm ./cmd/bundle-wasm

FROM envoyproxy/envoy:distroless-v1.40.0
COPY --from=build /inlet/libinlet.so /inlet/inlet.wasm /usr/local/lib/inlet/
