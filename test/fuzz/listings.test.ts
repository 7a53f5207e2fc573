/** What a store lists may be anything: S3's XML, and the files of a directory. */
import {mkdir, mkdtemp, rm, symlink, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {afterAll, beforeAll, describe, expect, it} from '@jest/globals';
import {groupObjects} from '../../src/lib/catalog/backups.ts';
import {backupsPrefix} from '../../src/lib/catalog/key-names.ts';
import {BackupError} from '../../src/lib/errors.ts';
import {DirectoryStore} from '../../src/lib/upload/directory-store.ts';
import type {ObjectStore} from '../../src/lib/upload/store.ts';
import {Random} from '../support/random.ts';
import {recordTrial} from '../support/reliability.ts';
import {collect, failureOf} from '../support/settings.ts';
import {bySize, seed} from '../support/size.ts';
import {type AnsweringStore, answeringStore} from './answering-store.ts';
import {damaged} from './mutations.ts';

const timestamp = '2025-11-04T15-30-00-000Z';
const backupName = `${backupsPrefix}${timestamp}/backup-${timestamp}.sql.gz.encrypted`;

const contents = (key: string) =>
  `<Contents><Key>${key}</Key><LastModified>2025-11-04T15:31:00.000Z</LastModified><ETag>"x"</ETag><Size>12345</Size></Contents>`;
const listing = (inside: string) =>
  `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>` +
  `<EncodingType>url</EncodingType><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys>${inside}</ListBucketResult>`;
const uploads = (inside: string) =>
  `<?xml version="1.0" encoding="UTF-8"?><ListMultipartUploadsResult><EncodingType>url</EncodingType>${inside}` +
  `<Upload><Key>${backupName}</Key><UploadId>1</UploadId><Initiated>2025-11-04T15:31:00.000Z</Initiated></Upload></ListMultipartUploadsResult>`;

let answering: AnsweringStore;
let store: ObjectStore;
let answer: Buffer | (() => Buffer) = Buffer.alloc(0);
let requests = 0;

beforeAll(async () => {
  answering = await answeringStore((_request, response) => {
    requests += 1;
    response.writeHead(200, {'content-type': 'application/xml'});
    response.end(typeof answer === 'function' ? answer() : answer);
  });
  store = answering.store;
});
afterAll(() => answering.stop());

/** Lists as `list`, `prune` and `status` do. */
async function read(): Promise<string> {
  try {
    const objects = await collect(store.list(backupsPrefix));
    groupObjects(objects.map(({key, sizeBytes}) => ({key, sizeBytes})));
    for (const {key, modifiedAt} of objects) expect([typeof key, modifiedAt instanceof Date]).toEqual(['string', true]);
    await collect(store.unfinishedUploads(backupsPrefix));
    return 'listed';
  } catch (error) {
    expect(error).toBeInstanceOf(BackupError);
    expect(error).toMatchObject({exitCode: 4});
    return 'refused';
  }
}

describe("a listing in S3's XML", () => {
  it('damaged in any way is read or refused', async () => {
    const random = new Random(seed);
    const pages = [
      listing(`<IsTruncated>false</IsTruncated>${contents(backupName)}${contents(`${backupName}.metadata.json`)}`),
      listing(`<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>${contents(backupName)}`),
      listing(`<IsTruncated>false</IsTruncated>${contents(`${backupsPrefix}a%zz%0a%1b`)}`),
      uploads(
        '<IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>1</NextUploadIdMarker>',
      ),
    ].map((text) => Buffer.from(text));
    const cases = bySize({short: 300, full: 8000});
    const seen = new Set<string>();
    for (let count = 0; count < cases; count += 1) {
      const page = pages[random.below(pages.length)] ?? Buffer.alloc(0);
      answer = damaged(page, random, pages);
      requests = 0;
      seen.add(await read());
      expect(requests).toBeLessThan(6);
    }
    expect([...seen].toSorted()).toEqual(['listed', 'refused']);
    recordTrial({
      area: 'Hostile input: listings',
      what: `${cases} damaged listings`,
      outcome: 'read, or refused (exit 4)',
    });
  }, 600_000);

  it.each([
    ['says that there is more and not where', '<IsTruncated>true</IsTruncated>'],
    ['goes on at the same place', '<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>'],
  ])('that %s is refused: it would be a part, or have no end', async (_, inside) => {
    answer = Buffer.from(listing(`${inside}${contents(backupName)}`));
    expect(await failureOf(collect(store.list('')))).toMatchObject({code: 'STORAGE_FAILED', exitCode: 4});
  });

  it.each([
    ['says that there is more and not where', '<IsTruncated>true</IsTruncated>'],
    [
      'goes on at the same place',
      '<IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>1</NextUploadIdMarker>',
    ],
  ])('of unfinished uploads that %s is refused', async (_, inside) => {
    answer = Buffer.from(uploads(inside));
    expect(await failureOf(collect(store.unfinishedUploads('')))).toMatchObject({code: 'STORAGE_FAILED'});
  });

  it('with a key that cannot be decoded is refused', async () => {
    answer = Buffer.from(listing(`<IsTruncated>false</IsTruncated>${contents('a%zz')}`));
    expect(await failureOf(collect(store.list('')))).toMatchObject({code: 'STORAGE_FAILED'});
  });

  it('with entities that grow is not expanded', async () => {
    const entities = Array.from({length: 9}, (_, n) => `<!ENTITY e${n + 1} "${`&e${n};`.repeat(10)}">`).join('');
    const head = `<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "xxxxxxxxxx">${entities}]>`;
    const before = process.memoryUsage().rss;
    answer = Buffer.from(listing(contents('&e9;')).replace(/<\?xml.*?\?>/, head));
    await read();
    expect(process.memoryUsage().rss - before).toBeLessThan(200 << 20);
  });
});

describe('keys that lead somewhere else', () => {
  let folder: string;
  let directory: DirectoryStore;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-keys-'));
    await mkdir(path.join(folder, 'bucket'));
    await writeFile(path.join(folder, 'secret'), 'not in the bucket');
    directory = new DirectoryStore(path.join(folder, 'bucket'));
  });
  afterAll(() => rm(folder, {recursive: true, force: true}));

  it.each([
    '../secret',
    'a/../../secret',
    '..',
    '.',
    '',
    'a\0b',
    '/../secret',
    `${'x/'.repeat(200)}${'../'.repeat(201)}secret`,
  ])('%j are refused for reading and writing', async (key) => {
    const work = [
      () => collect(directory.get(key)),
      () => directory.create(key, Buffer.from('x')),
      () => directory.replace(key, Buffer.from('x')),
      () => directory.delete(key),
      () => directory.head(key),
    ];
    for (const attempt of work) expect(await failureOf(attempt())).toMatchObject({code: 'STORAGE_FAILED', exitCode: 4});
    expect(await collect(directory.list(''))).toEqual([]);
  });

  it('in a directory of strange files are listed or passed over, and none is a backup', async () => {
    const base = path.join(folder, 'bucket', backupsPrefix);
    await mkdir(path.join(base, 'x.sql.gz.encrypted'), {recursive: true});
    const names = [
      '\u001b[2J',
      'line\nbreak',
      `backup-${timestamp}.sql.gz.encrypted`,
      '.hidden',
      '%2e%2e',
      'ä'.repeat(100),
    ];
    for (const name of names) await writeFile(path.join(base, name), 'x');
    await symlink('/etc/passwd', path.join(base, 'link'));
    await symlink('.', path.join(base, 'loop'));
    const listed = await collect(directory.list(backupsPrefix));
    expect(listed.map(({key}) => path.basename(key))).toEqual(expect.arrayContaining(names.slice(0, 3)));
    expect(listed.some(({key}) => key.includes('link') || key.includes('loop'))).toBe(false);
    expect(groupObjects(listed)).toEqual([]);
  });
});
