import {once} from 'node:events';
import {appendFile, mkdtemp, open, rm, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {afterAll, beforeAll, describe, expect, test} from '@jest/globals';
import {execa} from 'execa';
import {readSecretFile, SecretFiles} from '../../src/lib/secret-files.ts';

const key = '0123456789abcdef'.repeat(4);
const never = new AbortController().signal;

let folder: string;
let pipe: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-secrets-'));
  pipe = path.join(folder, 'pipe');
  await execa('mkfifo', [pipe]);
});
afterAll(() => rm(folder, {recursive: true}));

describe('a named pipe', () => {
  test('is read to its end, however it comes', async () => {
    const reading = readSecretFile(pipe, never);
    const writer = await open(pipe, 'w');
    for (const piece of [key.slice(0, 10), key.slice(10), '\n']) await writer.write(piece);
    await writer.close();
    expect(await reading).toBe(`${key}\n`);
  });

  test('is empty when its writer writes nothing', async () => {
    const reading = readSecretFile(pipe, never);
    await (await open(pipe, 'w')).close();
    expect(await reading).toBe('');
  });

  test('without a writer is given up after a while', async () => {
    await expect(readSecretFile(pipe, never, 50)).rejects.toThrow(
      `the pipe ${pipe} was not written and closed within 0.05 s`,
    );
  });

  test('without a writer is given up at a signal', async () => {
    const controller = new AbortController();
    const reading = new SecretFiles().read([pipe], controller.signal);
    controller.abort();
    await expect(reading).rejects.toMatchObject({code: 'INTERRUPTED'});
  });
});

test('a file is read once, and an error is kept, too', async () => {
  const files = new SecretFiles();
  const [file, missing] = [path.join(folder, 'key'), path.join(folder, 'missing')];
  await writeFile(file, key);
  await files.read([file, missing, file], never);
  await appendFile(file, 'more');
  await writeFile(missing, key);
  await files.read([file, missing], never);
  expect(files.contents(file)).toBe(key);
  expect(() => files.contents(missing)).toThrow('ENOENT');
});

test('a pipe whose writer has gone already, as in NAME_FILE=<(echo …)', async () => {
  const child = execa('bash', ['-c', `exec 3< <(echo ${key}); wait $!; echo ready; read -r`]);
  await once(child.stdout, 'data');
  expect(await readSecretFile(`/proc/${child.pid}/fd/3`, never)).toBe(`${key}\n`);
  child.stdin.end();
  await child.catch(() => undefined);
});
