/**
 * One try of a request about one whole object, signed and sent without the SDK's stack of middleware, which takes longer than
 * the rest of a small file together (docs/PERFORMANCE.md). What is no plain success is left to the SDK, which tries again,
 * waits, and knows every error: nothing depends on this way.
 */
import type {S3Client} from '@aws-sdk/client-s3';
import {SignatureV4} from '@smithy/signature-v4';

export interface PlainRequest {
  method: 'PUT' | 'HEAD';
  key: string;
  headers?: Readonly<Record<string, string>>;
  body?: Buffer;
}

export interface PlainAnswer {
  status: number;
  /** Names in lower case. */
  headers: Readonly<Record<string, string>>;
}

/** @returns a way to send requests about objects of that bucket; its answer is undefined when there was none */
export function plainRequests(
  {config}: S3Client,
  bucket: string,
): (request: PlainRequest) => Promise<PlainAnswer | undefined> {
  const {credentials, region, sha256, requestHandler} = config;
  const signer = new SignatureV4({credentials, region, sha256, service: 's3', uriEscapePath: false});
  let endpoint: ReturnType<NonNullable<typeof config.endpoint>> | undefined;
  return async ({method, key, headers = {}, body}) => {
    try {
      endpoint ??= config.endpoint?.();
      const place = await endpoint;
      if (!place) return undefined;
      const {protocol, hostname, port, path} = place;
      const signed = await signer.sign(
        {
          method,
          protocol,
          hostname,
          ...(port === undefined ? {} : {port}),
          path: `${path.replace(/\/$/, '')}/${[bucket, ...key.split('/')].map(escaped).join('/')}`,
          query: {},
          headers: {
            ...headers,
            host: port === undefined ? hostname : `${hostname}:${port}`,
            ...(body ? {'content-length': String(body.length)} : {}),
          },
          body,
        },
        {signingDate: new Date(Date.now() + config.systemClockOffset)},
      );
      const {response} = await requestHandler.handle(signed as Parameters<typeof requestHandler.handle>[0]);
      // The connection serves again when the answer was read.
      response.body?.resume();
      return {status: response.statusCode, headers: response.headers};
    } catch {
      return undefined;
    }
  };
}

/** RFC 3986: everything but letters, digits and `-._~`. */
function escaped(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (found) => `%${found.charCodeAt(0).toString(16).toUpperCase()}`);
}
