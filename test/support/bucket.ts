/** A bucket of its own for each test, and what it holds. */
import {randomBytes} from 'node:crypto';
import {CreateBucketCommand, ListMultipartUploadsCommand, paginateListObjectsV2, S3Client} from '@aws-sdk/client-s3';
import type {ObjectHandle} from './object-handle.ts';

/**
 * A plain client, for what a test does behind the product's back. Both servers take the region `auto` in signatures:
 * Ceph looks at none, Swift is configured for it and accepts no other. The SDK's own checksums are refused by Swift.
 */
export function objectClient(
  server: ObjectHandle,
  changes: Partial<Pick<ObjectHandle, 'secretAccessKey'>> = {},
): S3Client {
  const {endpoint, region, accessKeyId, secretAccessKey} = {...server, ...changes};
  return new S3Client({
    endpoint,
    region,
    credentials: {accessKeyId, secretAccessKey},
    forcePathStyle: true,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  });
}

/** @returns the bucket's name, of which there is no second. */
export async function createBucket(
  server: ObjectHandle,
  name = `loma-${randomBytes(6).toString('hex')}`,
): Promise<string> {
  // The SDK asks for a bucket in the client's region, unless that is us-east-1; Ceph refuses one in `auto`.
  const region = server.kind === 'ceph' ? 'us-east-1' : server.region;
  await withClient({...server, region}, (client) => client.send(new CreateBucketCommand({Bucket: name})));
  return name;
}

/** In the server's order, which is that of UTF-8. */
export function listAllKeys(server: ObjectHandle, bucket: string): Promise<string[]> {
  return withClient(server, async (client) => {
    const keys: string[] = [];
    for await (const page of paginateListObjectsV2({client}, {Bucket: bucket})) {
      for (const {Key} of page.Contents ?? []) if (Key !== undefined) keys.push(Key);
    }
    return keys;
  });
}

/** Multipart uploads that were neither completed nor aborted. */
export function listUnfinishedUploads(
  server: ObjectHandle,
  bucket: string,
): Promise<{key: string; uploadId: string}[]> {
  return withClient(server, async (client) => {
    const uploads: {key: string; uploadId: string}[] = [];
    let position: {KeyMarker?: string; UploadIdMarker?: string} = {};
    for (;;) {
      const page = await client.send(new ListMultipartUploadsCommand({Bucket: bucket, ...position}));
      for (const {Key = '', UploadId = ''} of page.Uploads ?? []) uploads.push({key: Key, uploadId: UploadId});
      if (!page.IsTruncated) return uploads;
      position = {KeyMarker: page.NextKeyMarker ?? '', UploadIdMarker: page.NextUploadIdMarker ?? ''};
    }
  });
}

async function withClient<T>(server: ObjectHandle, action: (client: S3Client) => Promise<T>): Promise<T> {
  const client = objectClient(server);
  try {
    return await action(client);
  } finally {
    client.destroy();
  }
}
