/** `keys` and `restore --recovery-key` as processes: flags, exit codes, what is printed and what is not. */
import {generateKeyPairSync} from 'node:crypto';
import {writeFile} from 'node:fs/promises';
import path from 'node:path';
import {afterAll, beforeAll, describe, expect, test} from '@jest/globals';
import {execa} from 'execa';
import {backup} from '../../src/lib/operations/backup.ts';
import {type CliEnvironment, cli, program, storeEnvironment} from '../support/cli.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {servers} from '../support/sandbox.ts';
import {backupSettings, keySettings, newKey, runtime, type TestStore, testStore} from '../support/settings.ts';

const passphrase = 'correct horse battery staple';
const [oldKey, key] = [newKey(), newKey()];
let database: TestDatabase;
let place: TestStore;
let environment: CliEnvironment;
let recoveryFile: string;
let fingerprints: {old: string};

beforeAll(async () => {
  database = await createDatabase(servers().postgres, {sql: "CREATE TABLE t AS SELECT 'a row that is PHI' AS note;"});
  place = await testStore('directory');
  environment = storeEnvironment(place.settings);
  const {publicKey, privateKey} = generateKeyPairSync('rsa', {
    modulusLength: 3072,
    publicKeyEncoding: {type: 'spki', format: 'pem'},
    privateKeyEncoding: {type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase},
  });
  const keys = {...keySettings(oldKey), recoveryPublicKey: publicKey};
  const taken = await backup(backupSettings({database: database.url, store: place, key: oldKey}, {keys}), runtime());
  fingerprints = {old: taken.keyFingerprint};
  recoveryFile = path.join(path.dirname(place.folder), 'recovery.pem');
  await writeFile(recoveryFile, privateKey);
});
afterAll(async () => {
  await database.drop();
  await place.dispose();
});

test('keys generate prints a key that can be used, and it alone says the key', async () => {
  const {exitCode, stdout} = await cli(['keys', 'generate', '--json']);
  expect(exitCode).toBe(0);
  const made = JSON.parse(stdout) as {key: string; fingerprint: string};
  const shown = await cli(['keys', 'show'], {...environment, PHI_ENCRYPTION_KEY: made.key});
  expect(shown.exitCode).toBe(0);
  expect(shown.stdout).toContain(made.fingerprint);
  expect(shown.stdout).toMatch(new RegExp(`${fingerprints.old} +1 of 1 +NOT AT HAND`));
  expect(shown.output).not.toContain(made.key);
});

/** The shell puts a pipe in the place of `<(…)`. */
function inShell(command: string, variables: CliEnvironment) {
  const env = {PATH: process.env.PATH ?? '', ...environment, ...variables};
  const script = command.replaceAll('loma-backup', '"$0" "$1"');
  return execa('bash', ['-c', script, process.execPath, program], {
    env,
    extendEnv: false,
    reject: false,
    stdin: 'ignore',
  });
}

test('a key that comes out of a pipe', async () => {
  const command = 'PHI_ENCRYPTION_KEY_FILE=<(echo "$KEY") loma-backup keys show';
  const {exitCode, stdout, stderr} = await inShell(command, {KEY: oldKey});
  expect({exitCode, stderr}).toEqual({exitCode: 0, stderr: ''});
  expect(stdout).toMatch(new RegExp(`${fingerprints.old} +1 of 1 +PHI_ENCRYPTION_KEY`));
});

describe('restore --recovery-key', () => {
  const toStdout = () => ['restore', '--latest', '--output', '-', '--recovery-key', recoveryFile];

  test('takes the key out of a pipe', async () => {
    const command = 'loma-backup restore --latest --output - --recovery-key <(cat "$PEM")';
    const {exitCode, stdout} = await inShell(command, {PEM: recoveryFile, LOMA_BACKUP_RECOVERY_PASSPHRASE: passphrase});
    expect(exitCode).toBe(0);
    expect(stdout).toContain('a row that is PHI');
  });

  test('opens a backup without PHI_ENCRYPTION_KEY', async () => {
    const {exitCode, stdout, stderr} = await cli(toStdout(), {
      ...environment,
      LOMA_BACKUP_RECOVERY_PASSPHRASE: passphrase,
    });
    expect(exitCode).toBe(0);
    expect(stdout).toContain('a row that is PHI');
    expect(stderr).toContain('the recovery key alone proves');
    expect(stderr).not.toContain(passphrase);
  });

  test('needs its passphrase, and no terminal to say so', async () => {
    for (const words of [environment, {...environment, LOMA_BACKUP_RECOVERY_PASSPHRASE: 'another'}]) {
      const {exitCode, stdout, stderr} = await cli(toStdout(), words);
      expect([exitCode, stdout]).toEqual([2, '']);
      expect(stderr).toContain('The recovery key cannot be used');
    }
    const missing = await cli(['restore', '--latest', '--output', '-', '--recovery-key', '/nowhere'], environment);
    expect(missing.exitCode).toBe(2);
    expect(missing.stderr).toContain('/nowhere');
  });
});

test('keys rotate of a directory that is not there tells nobody to destroy a key', async () => {
  const {exitCode, stdout, stderr} = await cli(['keys', 'rotate'], {
    LOMA_BACKUP_STORE: 'file:///mnt/not-mounted/store',
    PHI_ENCRYPTION_KEY: key,
    PHI_ENCRYPTION_KEYS_PREVIOUS: oldKey,
  });
  expect({exitCode, stdout}).toEqual({exitCode: 4, stdout: ''});
  expect(stderr).toContain('The directory of the store is not there');
});

test('keys rotate says which key is not needed any more; a wrong old one is exit code 5', async () => {
  // There is such a bucket, and it holds no files.
  const withoutFiles = {...environment, CLOUDFLARE_R2_BUCKET_FILES: place.settings.backupsBucket};
  const wrong = await cli(['keys', 'rotate'], {
    ...withoutFiles,
    PHI_ENCRYPTION_KEY: key,
    PHI_ENCRYPTION_KEYS_PREVIOUS: newKey(),
  });
  expect(wrong.exitCode).toBe(5);
  expect(wrong.stderr).toContain('Code: ROTATION_INCOMPLETE');
  expect(wrong.stdout).toContain('Keep every previous key');
  const asJson = await cli(['keys', 'rotate', '--json'], {
    ...withoutFiles,
    PHI_ENCRYPTION_KEY: key,
    PHI_ENCRYPTION_KEYS_PREVIOUS: newKey(),
  });
  expect(asJson.exitCode).toBe(5);
  expect(JSON.parse(asJson.stdout)).toMatchObject({
    rotations: [{outcome: 'failed'}],
    keepPreviousBecause: ['1 backups could not be rotated'],
    error: {code: 'ROTATION_INCOMPLETE', exitCode: 5},
  });
  const right = await cli(['keys', 'rotate'], {
    ...withoutFiles,
    PHI_ENCRYPTION_KEY: key,
    PHI_ENCRYPTION_KEYS_PREVIOUS: `${oldKey},${key}`,
  });
  expect(right.exitCode).toBe(0);
  expect(right.stdout).toContain(`Not needed any more: ${fingerprints.old}. `);
  for (const secret of [key, oldKey]) expect(wrong.output + right.output).not.toContain(secret);
  const restored = await cli(['restore', '--latest', '--output', '-'], {...environment, PHI_ENCRYPTION_KEY: key});
  expect(restored.stdout).toContain('a row that is PHI');
});
