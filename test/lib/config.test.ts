import {generateKeyPairSync} from 'node:crypto';
import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {
  type AllSettings,
  fileNames,
  mergeValues,
  type Need,
  resolveSettings,
  type SettingsSource,
  secretNames,
  variableNames,
} from '../../src/lib/config.ts';
import {BackupError} from '../../src/lib/errors.ts';

const key = '0123456789abcdef'.repeat(4);
const otherKey = 'F'.repeat(64);
const account = 'a'.repeat(32);

const complete = {
  DATABASE_URL: 'postgresql://ann:db-password@db/clinic',
  TEST_DATABASE_URL: 'postgresql://ann:test-password@test/postgres',
  CLOUDFLARE_R2_ACCOUNT_ID: account,
  CLOUDFLARE_R2_ACCESS_KEY_ID: 'access-key-id',
  CLOUDFLARE_R2_SECRET_ACCESS_KEY: 'secret-access-key',
  PHI_ENCRYPTION_KEY: key,
};

const source = (
  environment: Record<string, string | undefined>,
  rest: Partial<SettingsSource> = {},
): SettingsSource => ({
  flags: {},
  environment,
  readFile: (file) => {
    throw new Error(`ENOENT: no such file ${file}`);
  },
  ...rest,
});

const resolve = <N extends Need>(
  needs: readonly N[],
  environment: Record<string, string | undefined>,
): Pick<AllSettings, N> => resolveSettings(needs, source(environment));

/** The text of the error for wrong settings. */
function problemsOf(needs: readonly Need[], environment: Record<string, string | undefined>): string {
  try {
    resolve(needs, environment);
  } catch (error) {
    expect(error).toBeInstanceOf(BackupError);
    expect(error).toMatchObject({code: 'CONFIGURATION_INVALID', exitCode: 2});
    return (error as BackupError).message;
  }
  throw new Error('the settings were taken');
}

const everything: Need[] = ['database', 'optionalTestDatabase', 'store', 'keys', 'compression', 'pingUrl'];

describe('complete settings', () => {
  it('are read, with the defaults of what is not set', () => {
    const settings = resolve(everything, complete);
    expect(settings).toMatchObject({
      database: {host: 'db', database: 'clinic'},
      optionalTestDatabase: {host: 'test', database: 'postgres'},
      store: {
        kind: 's3',
        endpoint: `https://${account}.r2.cloudflarestorage.com`,
        region: 'auto',
        accessKeyId: 'access-key-id',
        backupsBucket: 'loma-db-backups',
        filesBucket: 'loma-phi-files',
      },
      compression: 'gzip',
    });
    expect(settings.keys.current.reveal()).toBe(key);
    expect(settings.keys.previous).toEqual([]);
    expect(Object.isFrozen(settings)).toBe(true);
  });

  it.each<[Record<string, string>, Need, unknown]>([
    [
      {CLOUDFLARE_R2_BUCKET_BACKUPS: 'my.backups-1'},
      'store',
      {backupsBucket: 'my.backups-1', filesBucket: 'loma-phi-files'},
    ],
    [{CLOUDFLARE_R2_BUCKET_FILES: 'my-files'}, 'store', {backupsBucket: 'loma-db-backups', filesBucket: 'my-files'}],
    [
      {CLOUDFLARE_R2_ENDPOINT: `https://${account}.eu.r2.cloudflarestorage.com/`},
      'store',
      {endpoint: `https://${account}.eu.r2.cloudflarestorage.com`},
    ],
    [
      {CLOUDFLARE_R2_ENDPOINT: 'http://127.0.0.1:9000', CLOUDFLARE_R2_ACCOUNT_ID: ''},
      'store',
      {endpoint: 'http://127.0.0.1:9000'},
    ],
    [{}, 'store', {region: 'auto'}],
    [{CLOUDFLARE_R2_REGION: 'eu-central-1'}, 'store', {region: 'eu-central-1'}],
    [{LOMA_BACKUP_STORE: 'file:///mnt/backups/'}, 'store', {kind: 'directory', path: '/mnt/backups'}],
    [{LOMA_BACKUP_STORE: 'file:///mnt/my%20backups'}, 'store', {kind: 'directory', path: '/mnt/my backups'}],
    [{LOMA_BACKUP_COMPRESSION: 'zstd'}, 'compression', 'zstd'],
    [{LOMA_BACKUP_COMPRESSION: ''}, 'compression', 'gzip'],
    [{LOMA_BACKUP_COMPRESSION: ' gzip\n'}, 'compression', 'gzip'],
  ])('take %j', (environment, need, expected) => {
    const settings = resolve([need], {...complete, ...environment});
    expect(settings).toMatchObject({[need]: expected});
  });

  it('take keys in upper case, and several previous ones', () => {
    const {keys} = resolve(['keys'], {
      PHI_ENCRYPTION_KEY: otherKey,
      PHI_ENCRYPTION_KEYS_PREVIOUS: ` ${key} , ${otherKey},`,
    });
    expect(keys.current.reveal()).toBe(otherKey);
    expect(keys.previous.map((secret) => secret.reveal())).toEqual([key, otherKey]);
  });

  it('need no R2 variables for a directory, and no database for a list', () => {
    expect(
      resolve(['store', 'optionalKeys', 'optionalDatabase', 'optionalTestDatabase', 'pingUrl'], {
        LOMA_BACKUP_STORE: 'file:///mnt/b',
      }),
    ).toMatchObject({
      optionalKeys: undefined,
      optionalDatabase: undefined,
      optionalTestDatabase: undefined,
      pingUrl: undefined,
    });
  });

  it('are only what was asked for: a wrong variable that is not needed does not matter', () => {
    expect(resolve(['compression'], {DATABASE_URL: 'nonsense', PHI_ENCRYPTION_KEY: 'short'})).toEqual({
      compression: 'gzip',
    });
  });
});

describe('a missing setting is named with its mend', () => {
  it.each<[Need, RegExp]>([
    ['database', /^DATABASE_URL is not set: set it to the URL of the database, postgresql:\/\//],
    [
      'store',
      /^R2 is not configured: CLOUDFLARE_R2_ACCOUNT_ID, CLOUDFLARE_R2_ACCESS_KEY_ID, CLOUDFLARE_R2_SECRET_ACCESS_KEY are not set\..*Cloudflare dashboard/,
    ],
    ['keys', /^PHI_ENCRYPTION_KEY must be 64 hex characters: it is not set\..*openssl rand -hex 32/],
  ])('%s', (need, words) => {
    expect(problemsOf([need], {})).toMatch(words);
    const blank = Object.fromEntries(variableNames.map((name) => [name, '  ']));
    expect(problemsOf([need], blank)).toMatch(words);
  });

  it.each(['CLOUDFLARE_R2_ACCOUNT_ID', 'CLOUDFLARE_R2_ACCESS_KEY_ID', 'CLOUDFLARE_R2_SECRET_ACCESS_KEY'])(
    'R2 without %s',
    (name) => {
      expect(problemsOf(['store'], {...complete, [name]: undefined})).toMatch(
        new RegExp(`^R2 is not configured: ${name} is not set\\.`),
      );
    },
  );
});

describe('a malformed setting is named with its mend', () => {
  it.each<[Need, string, string, RegExp]>([
    ['database', 'DATABASE_URL', 'db.example.com', /^DATABASE_URL must look like postgresql:\/\//],
    ['database', 'DATABASE_URL', 'postgresql://db:5432', /^DATABASE_URL names no database/],
    ['optionalTestDatabase', 'TEST_DATABASE_URL', 'mysql://x/y', /^TEST_DATABASE_URL must look like/],
    ['store', 'CLOUDFLARE_R2_ACCOUNT_ID', 'my-account', /^CLOUDFLARE_R2_ACCOUNT_ID must be the 32 hex characters/],
    ['store', 'CLOUDFLARE_R2_ENDPOINT', 'r2.cloudflarestorage.com', /^CLOUDFLARE_R2_ENDPOINT must look like https:/],
    ['store', 'CLOUDFLARE_R2_ENDPOINT', 'https://host/bucket', /^CLOUDFLARE_R2_ENDPOINT must .*without a path/],
    ['store', 'CLOUDFLARE_R2_ENDPOINT', 'https://key:secret@host', /^CLOUDFLARE_R2_ENDPOINT must/],
    ['store', 'CLOUDFLARE_R2_ENDPOINT', 'ftp://host', /^CLOUDFLARE_R2_ENDPOINT must/],
    ['store', 'CLOUDFLARE_R2_REGION', 'eu central', /^CLOUDFLARE_R2_REGION must be the name of a region/],
    [
      'store',
      'CLOUDFLARE_R2_BUCKET_BACKUPS',
      'My_Bucket',
      /^CLOUDFLARE_R2_BUCKET_BACKUPS is not a bucket name \("My_Bucket"\)/,
    ],
    ['store', 'CLOUDFLARE_R2_BUCKET_BACKUPS', 'a/../b', /^CLOUDFLARE_R2_BUCKET_BACKUPS is not a bucket name/],
    ['store', 'CLOUDFLARE_R2_BUCKET_FILES', 'ab', /^CLOUDFLARE_R2_BUCKET_FILES is not a bucket name.*3 to 63/],
    ['store', 'CLOUDFLARE_R2_BUCKET_FILES', 'a'.repeat(64), /^CLOUDFLARE_R2_BUCKET_FILES is not a bucket name/],
    [
      'store',
      'LOMA_BACKUP_STORE',
      '/mnt/backups',
      /^LOMA_BACKUP_STORE must be file:\/\/\/absolute\/directory \(it is "\/mnt\/backups"\)/,
    ],
    ['store', 'LOMA_BACKUP_STORE', 's3://bucket', /^LOMA_BACKUP_STORE must be file:/],
    ['store', 'LOMA_BACKUP_STORE', 'file://host/mnt', /^LOMA_BACKUP_STORE must be file:/],
    ['store', 'LOMA_BACKUP_STORE', 'file:///', /^LOMA_BACKUP_STORE must be file:/],
    ['store', 'LOMA_BACKUP_STORE', 'file:///mnt%2Fx', /^LOMA_BACKUP_STORE must be file:/],
    ['keys', 'PHI_ENCRYPTION_KEY', key.slice(1), /^PHI_ENCRYPTION_KEY must be 64 hex characters: it has 63\./],
    ['keys', 'PHI_ENCRYPTION_KEY', `${key}0`, /^PHI_ENCRYPTION_KEY must be 64 hex characters: it has 65\./],
    [
      'keys',
      'PHI_ENCRYPTION_KEY',
      key.replace('9', 'g'),
      /^PHI_ENCRYPTION_KEY must be 64 hex characters: character 10 is not one of 0-9 and a-f/,
    ],
    [
      'keys',
      'PHI_ENCRYPTION_KEYS_PREVIOUS',
      `${key},short`,
      /^PHI_ENCRYPTION_KEYS_PREVIOUS must be .*number 2: it has 5/,
    ],
    ['compression', 'LOMA_BACKUP_COMPRESSION', 'lz4', /^LOMA_BACKUP_COMPRESSION must be gzip or zstd: it is "lz4"/],
    ['pingUrl', 'LOMA_BACKUP_PING_URL', 'hc-ping.com/x', /^LOMA_BACKUP_PING_URL must look like https:/],
    ['optionalDatabase', 'DATABASE_URL', 'nonsense', /^DATABASE_URL must look like/],
    ['compression', 'LOMA_BACKUP_COMPRESSION', 'GZIP', /^LOMA_BACKUP_COMPRESSION must be gzip or zstd/],
  ])('%s: %s=%s', (need, name, value, words) => {
    expect(problemsOf([need], {...complete, [name]: value})).toMatch(words);
  });

  it('also where keys are optional', () => {
    expect(problemsOf(['optionalKeys'], {PHI_ENCRYPTION_KEY: 'short'})).toMatch(/^PHI_ENCRYPTION_KEY must be 64 hex/);
  });
});

describe('wrong settings', () => {
  it('are reported all together, each once', () => {
    const message = problemsOf([...everything, 'optionalKeys'], {
      TEST_DATABASE_URL: 'nonsense',
      PHI_ENCRYPTION_KEY: key.slice(1),
      CLOUDFLARE_R2_ACCOUNT_ID: 'bad',
      CLOUDFLARE_R2_BUCKET_FILES: 'X',
      LOMA_BACKUP_COMPRESSION: 'lz4',
      PHI_ENCRYPTION_KEYS_PREVIOUS_FILE: '/run/secrets/missing',
    });
    expect(message).toMatch(/^8 settings are wrong or missing:\n/);
    for (const words of [
      'DATABASE_URL is not set',
      'TEST_DATABASE_URL must look like',
      'R2 is not configured: CLOUDFLARE_R2_ACCESS_KEY_ID, CLOUDFLARE_R2_SECRET_ACCESS_KEY are not set',
      'CLOUDFLARE_R2_ACCOUNT_ID must be the 32 hex characters',
      'CLOUDFLARE_R2_BUCKET_FILES is not a bucket name',
      'PHI_ENCRYPTION_KEY must be 64 hex characters: it has 63',
      'LOMA_BACKUP_COMPRESSION must be gzip or zstd',
      'PHI_ENCRYPTION_KEYS_PREVIOUS_FILE cannot be read',
    ]) {
      expect(message.split(`\n  - ${words}`)).toHaveLength(2);
    }
  });

  it('never show a secret', () => {
    const marked = fc
      .string({unit: fc.constantFrom(...'abcdefghijklmnopqrstuvwxyz:/@?#%')})
      .map((text) => `s3cr3t${text}s3cr3t`);
    fc.assert(
      fc.property(
        fc.record(Object.fromEntries(secretNames.map((name) => [name, marked]))),
        marked,
        (secrets, other) => {
          const wrong = {
            ...secrets,
            DATABASE_URL: `mysql://ann:${secrets.DATABASE_URL}@db/x`,
            TEST_DATABASE_URL: `postgresql://ann:${other}@db:port/x`,
            CLOUDFLARE_R2_ENDPOINT: `https://key:${encodeURIComponent(other)}@host`,
          };
          expect(problemsOf(everything, wrong)).not.toContain('s3cr3t');
        },
      ),
    );
  });
});

describe('the recovery key', () => {
  const pem = (bits: number) =>
    String(generateKeyPairSync('rsa', {modulusLength: bits}).publicKey.export({type: 'spki', format: 'pem'}));
  const recovery = (text: string) => ({...complete, LOMA_BACKUP_RECOVERY_PUBLIC_KEY: text});

  it('is an RSA public key of 3,072 bits, also on one line', () => {
    const text = pem(3072);
    for (const given of [text, text.replaceAll('\n', '\\n')]) {
      const {keys} = resolveSettings(['keys'], source(recovery(given)));
      expect(keys.recoveryPublicKey?.trim()).toBe(text.trim());
    }
  });

  it.each([
    ['a smaller one', () => pem(2048), /it has 2048 bits/],
    ['a private one', () => '-----BEGIN PRIVATE KEY-----', /private key, which belongs into the safe/],
    [
      'one of another kind',
      () => String(generateKeyPairSync('ed25519').publicKey.export({type: 'spki', format: 'pem'})),
      /it is of type ed25519/,
    ],
    ['something else', () => 'AAAA', /it is no public key/],
  ])('is not %s', (_, text, problem) => {
    expect(problemsOf(['keys'], recovery(text()))).toMatch(problem);
  });

  it('stands in for the PHI key where backups are read, from the file that a flag names', () => {
    const files = {LOMA_BACKUP_RECOVERY_PRIVATE_KEY: '/media/recovery.pem'};
    const environment = {LOMA_BACKUP_RECOVERY_PRIVATE_KEY: 'another', LOMA_BACKUP_RECOVERY_PASSPHRASE: 'geheim'};
    const {readingKeys} = resolveSettings(['readingKeys'], source(environment, {files, readFile: (file) => file}));
    expect(readingKeys.keys).toBeUndefined();
    expect(readingKeys.recovery?.pem.reveal()).toBe('/media/recovery.pem');
    expect(readingKeys.recovery?.passphrase?.reveal()).toBe('geheim');
    expect(problemsOf(['readingKeys'], {})).toMatch(/PHI_ENCRYPTION_KEY must be 64 hex characters: it is not set/);
  });
});

describe('a value that came from a flag', () => {
  it.each<[Need, Partial<SettingsSource>, RegExp]>([
    ['pingUrl', {flags: {LOMA_BACKUP_PING_URL: 'foo'}}, /^--ping must look like/],
    ['database', {flags: {DATABASE_URL: 'foo'}}, /^--target must look like/],
    ['optionalTestDatabase', {flags: {TEST_DATABASE_URL: 'foo'}}, /^--target must look like/],
    ['compression', {flags: {LOMA_BACKUP_COMPRESSION: 'lz4'}}, /^--compression must be/],
    ['readingKeys', {files: {LOMA_BACKUP_RECOVERY_PRIVATE_KEY: 'no.pem'}}, /^--recovery-key cannot be read \(ENOENT/],
    [
      'readingKeys',
      {files: {LOMA_BACKUP_RECOVERY_PRIVATE_KEY: 'no.pem'}, readFile: () => ''},
      /^--recovery-key names an empty file \(no\.pem\)/,
    ],
  ])('%s: is called by the flag, and nothing else is missed', (need, rest, words) => {
    const error = (() => {
      try {
        return resolveSettings([need], source({}, rest));
      } catch (thrown) {
        return thrown;
      }
    })();
    expect(error).toMatchObject({code: 'CONFIGURATION_INVALID', message: expect.stringMatching(words)});
    expect((error as BackupError).message).not.toMatch(/LOMA_BACKUP_PING|PHI_ENCRYPTION_KEY|DATABASE_URL|settings are/);
  });
});

describe('where a setting comes from', () => {
  const files: Record<string, string> = {'/run/key': `${otherKey}\n`, '/run/empty': '\n'};
  const readFile = (file: string) => {
    const text = files[file];
    if (text === undefined) throw new Error(`ENOENT: ${file}`);
    return text;
  };
  const valueFrom = (name: (typeof variableNames)[number], rest: Partial<SettingsSource>) =>
    mergeValues(source({}, {readFile, ...rest})).values[name];

  it('is a flag before the environment, and the environment before a file', () => {
    const environment = {PHI_ENCRYPTION_KEY: key, PHI_ENCRYPTION_KEY_FILE: '/run/key'};
    expect(valueFrom('PHI_ENCRYPTION_KEY', {environment, flags: {PHI_ENCRYPTION_KEY: 'flag'}})).toBe('flag');
    expect(valueFrom('PHI_ENCRYPTION_KEY', {environment})).toBe(key);
    expect(valueFrom('PHI_ENCRYPTION_KEY', {environment: {...environment, PHI_ENCRYPTION_KEY: ''}})).toBe(otherKey);
  });

  it('is a flag before the environment for a whole setting', () => {
    const {database} = resolveSettings(
      ['database'],
      source(complete, {flags: {DATABASE_URL: 'postgresql://flag/other'}}),
    );
    expect(database).toMatchObject({host: 'flag', database: 'other'});
    const {compression} = resolveSettings(
      ['compression'],
      source({LOMA_BACKUP_COMPRESSION: 'gzip'}, {flags: {LOMA_BACKUP_COMPRESSION: 'zstd'}}),
    );
    expect(compression).toBe('zstd');
  });

  it.each(fileNames)('may be a file for %s', (name) => {
    expect(valueFrom(name, {environment: {[`${name}_FILE`]: '/run/key'}})).toBe(otherKey);
  });

  it.each(variableNames.filter((name) => !fileNames.includes(name)))(
    'is not a file for %s, which is no secret',
    (name) => {
      expect(valueFrom(name, {environment: {[`${name}_FILE`]: '/run/key'}})).toBeUndefined();
    },
  );

  it('is said when the file cannot be read or is empty', () => {
    const problems = (file: string) => mergeValues(source({PHI_ENCRYPTION_KEY_FILE: file}, {readFile})).problems;
    expect(problems('/run/none')).toEqual([
      expect.stringMatching(/^PHI_ENCRYPTION_KEY_FILE cannot be read \(ENOENT: \/run\/none\): does the file exist/),
    ]);
    expect(problems('/run/empty')).toEqual([expect.stringMatching(/^PHI_ENCRYPTION_KEY_FILE names an empty file/)]);
  });

  it('is not a file that is not needed', () => {
    expect(
      mergeValues(source({PHI_ENCRYPTION_KEY: key, PHI_ENCRYPTION_KEY_FILE: '/run/none'}, {readFile})).problems,
    ).toEqual([]);
  });
});
