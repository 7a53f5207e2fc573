/** A server that sends without end: what is read of it is what was asked for. */
import type {IncomingMessage, ServerResponse} from 'node:http';
import {Readable} from 'node:stream';
import {afterAll, beforeAll, describe, expect, it} from '@jest/globals';
import {backupsPrefix, manifestKey} from '../../src/lib/catalog/key-names.ts';
import {mostManifestBytes} from '../../src/lib/catalog/manifest.ts';
import {readCatalog} from '../../src/lib/operations/catalog.ts';
import {recordTrial} from '../support/reliability.ts';
import {collect, failureOf} from '../support/settings.ts';
import {type AnsweringStore, answeringStore} from './answering-store.ts';

const timestamp = '2025-11-04T15-30-00-000Z';
const key = `${backupsPrefix}${timestamp}/backup-${timestamp}.sql.gz.encrypted`;
const gigabyte = 1 << 30;
/** Sockets and streams have taken as much before they stop. */
const underWay = 16 << 20;

const listing = [key, manifestKey(key)]
  .map(
    (name) =>
      `<Contents><Key>${name}</Key><LastModified>2025-11-04T15:31:00.000Z</LastModified><Size>9</Size></Contents>`,
  )
  .join('');

let answering: AnsweringStore;
let answer: (request: IncomingMessage, response: ServerResponse) => void;
let sent = 0;

function send(response: ServerResponse, bytes: number): void {
  const block = Buffer.alloc(1 << 20, ' ');
  function* blocks() {
    for (let left = bytes; left > 0; left -= block.length) {
      const part = block.subarray(0, Math.min(left, block.length));
      sent += part.length;
      yield part;
    }
  }
  Readable.from(blocks()).pipe(response);
  response.on('error', () => undefined);
}

beforeAll(async () => {
  answering = await answeringStore((request, response) => {
    if (!request.url?.includes('list-type=2')) return answer(request, response);
    response.end(`<ListBucketResult><IsTruncated>false</IsTruncated>${listing}</ListBucketResult>`);
  });
});
afterAll(() => answering.stop());

describe('a manifest of 1 GB', () => {
  const whole = {
    'by a server that knows ranges': (request: IncomingMessage, response: ServerResponse) => {
      const [, last = ''] = /^bytes=0-(\d+)$/.exec(request.headers.range ?? '') ?? [];
      const bytes = Number(last) + 1;
      response.writeHead(206, {'content-range': `bytes 0-${last}/${gigabyte}`, 'content-length': bytes});
      send(response, bytes);
    },
    'by a server that sends all of it, whatever was asked for': (_: IncomingMessage, response: ServerResponse) => {
      response.writeHead(200, {'content-length': gigabyte});
      send(response, gigabyte);
    },
    'by a server that sends more than it says': (_: IncomingMessage, response: ServerResponse) => {
      response.writeHead(206, {'content-range': 'bytes 0-99/100'});
      send(response, gigabyte);
    },
  };

  it.each(Object.keys(whole) as (keyof typeof whole)[])('sent %s is refused, and not read to its end', async (how) => {
    answer = whole[how];
    sent = 0;
    const before = process.memoryUsage().rss;
    const [found] = await readCatalog(answering.store, undefined);
    // Of what is more than was promised, the promised part is looked at: white space.
    const problem = how === 'by a server that sends more than it says' ? /not JSON/ : /larger than/;
    expect(found).toMatchObject({key, state: 'damaged', problem: expect.stringMatching(problem)});
    expect(sent).toBeLessThan(mostManifestBytes + underWay);
    expect(process.memoryUsage().rss - before).toBeLessThan(400 << 20);
    recordTrial({
      area: 'Hostile input: endless answers',
      what: `a manifest of 1 GB, sent ${how}`,
      outcome: 'damaged, and not read to its end',
    });
  });
});

describe('an object that is read from its middle', () => {
  it('by a server that begins at its beginning is refused', async () => {
    answer = (_, response) => void response.end('x'.repeat(100));
    expect(await failureOf(collect(answering.store.get(key, {offset: 5})))).toMatchObject({
      code: 'STORAGE_FAILED',
      exitCode: 4,
    });
  });
});

describe('an object', () => {
  it('whose download breaks off after some bytes every time is given up', async () => {
    let requests = 0;
    answer = (request, response) => {
      requests += 1;
      const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
      const head = {'content-range': `bytes ${start}-999999/1000000`, 'content-length': 1_000_000 - start};
      response.writeHead(start > 0 ? 206 : 200, head);
      response.write('x'.repeat(50), () => response.destroy());
    };
    expect(await failureOf(collect(answering.store.get(key)))).toMatchObject({code: 'STORAGE_FAILED', exitCode: 4});
    expect(requests).toBe(6);
  });
});
