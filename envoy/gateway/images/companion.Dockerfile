# The companion. From the root of the repository: docker build -f envoy/gateway/images/companion.Dockerfile -t inlet-companion:dev .
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /companion ./cmd/companion

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /companion /companion
USER 65532:65532
ENTRYPOINT ["/companion"]
