# loma-backup with the PostgreSQL client of one major version:
#   docker build --build-arg POSTGRES_MAJOR=17 --tag loma-backup .
#   docker run --rm --env-file settings.env loma-backup backup
# Secrets are better mounted than put into the environment: NAME_FILE=/run/secrets/name.
FROM node:26.10.0-bookworm-slim AS build
WORKDIR /src
COPY . .
RUN npm ci --no-audit --no-fund && npm run build && npm pack --pack-destination /package

FROM node:26.10.0-bookworm-slim
ARG POSTGRES_MAJOR=17
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates postgresql-common \
  && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y \
  && apt-get install -y --no-install-recommends "postgresql-client-${POSTGRES_MAJOR}" \
  && rm -rf /var/lib/apt/lists/*
COPY --from=build /package/*.tgz /tmp/
RUN npm install --global --no-audit --no-fund --ignore-scripts /tmp/*.tgz && rm /tmp/*.tgz
USER node
WORKDIR /home/node
ENTRYPOINT ["loma-backup"]
CMD ["--help"]
