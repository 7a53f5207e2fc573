/** A store that answers whatever a test wants: an S3 client whose server is the test. */
import {createServer, type RequestListener} from 'node:http';
import type {AddressInfo} from 'node:net';
import {S3Client} from '@aws-sdk/client-s3';
import {S3Store} from '../../src/lib/upload/s3-store.ts';

export interface AnsweringStore {
  store: S3Store;
  stop(): Promise<void>;
}

export async function answeringStore(answer: RequestListener): Promise<AnsweringStore> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  const client = new S3Client({
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    region: 'auto',
    credentials: {accessKeyId: 'a', secretAccessKey: 'b'},
    forcePathStyle: true,
    maxAttempts: 1,
    responseChecksumValidation: 'WHEN_REQUIRED',
  });
  return {
    store: new S3Store(client, 'bucket', 'a bucket of anything'),
    async stop() {
      client.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => void server.close(resolve));
    },
  };
}
