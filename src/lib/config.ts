/**
 * Settings: read once from flags and environment, by a pure function, with every mistake reported together. A flag beats
 * the environment, the environment beats a default. Each secret can also come as NAME_FILE=/path.
 */
import {createPublicKey} from 'node:crypto';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import {BackupError} from './errors.ts';
import {type Connection, parseConnectionUrl} from './postgres/connection.ts';
import {Secret} from './secret.ts';

export const compressionNames = ['gzip', 'zstd'] as const;
export type CompressionName = (typeof compressionNames)[number];

export interface S3StoreSettings {
  kind: 's3';
  endpoint: string;
  region: string;
  accessKeyId: string;
  secretAccessKey: Secret;
}

export interface DirectoryStoreSettings {
  kind: 'directory';
  /** Absolute; each bucket is a directory in it. */
  path: string;
}

export type StoreSettings = (S3StoreSettings | DirectoryStoreSettings) & {
  backupsBucket: string;
  filesBucket: string;
};

export interface KeySettings {
  /** 64 hex characters. */
  current: Secret;
  previous: readonly Secret[];
  /** PEM: every data key is wrapped under this one, too. */
  recoveryPublicKey?: string | undefined;
}

/** The recovery key's private half, PEM, and the passphrase that it may be encrypted with. */
export interface RecoverySettings {
  pem: Secret;
  passphrase: Secret | undefined;
}

/** Everything that can be set; a command asks for what it needs. */
export interface AllSettings {
  database: Connection;
  /** As `database`, for commands that can do without. */
  optionalDatabase: Connection | undefined;
  optionalTestDatabase: Connection | undefined;
  store: StoreSettings;
  keys: KeySettings;
  /** As `keys`, for commands that can do without. */
  optionalKeys: KeySettings | undefined;
  /** What opens backups: without the recovery key, `keys` are needed. */
  readingKeys: {keys: KeySettings | undefined; recovery: RecoverySettings | undefined};
  compression: CompressionName;
  /** Where to report success and failure to (healthchecks.io and its like). */
  pingUrl: Secret | undefined;
}

export type Need = keyof AllSettings;

/** The variables that are read, and only here. */
export const variableNames = [
  'DATABASE_URL',
  'TEST_DATABASE_URL',
  'CLOUDFLARE_R2_ACCOUNT_ID',
  'CLOUDFLARE_R2_ACCESS_KEY_ID',
  'CLOUDFLARE_R2_SECRET_ACCESS_KEY',
  'CLOUDFLARE_R2_BUCKET_BACKUPS',
  'CLOUDFLARE_R2_BUCKET_FILES',
  'CLOUDFLARE_R2_ENDPOINT',
  'CLOUDFLARE_R2_REGION',
  'PHI_ENCRYPTION_KEY',
  'PHI_ENCRYPTION_KEYS_PREVIOUS',
  'LOMA_BACKUP_RECOVERY_PUBLIC_KEY',
  'LOMA_BACKUP_RECOVERY_PRIVATE_KEY',
  'LOMA_BACKUP_RECOVERY_PASSPHRASE',
  'LOMA_BACKUP_STORE',
  'LOMA_BACKUP_COMPRESSION',
  'LOMA_BACKUP_PING_URL',
] as const;

export type VariableName = (typeof variableNames)[number];

/** Variables whose value must not be seen, and may come as NAME_FILE. */
export const secretNames = [
  'DATABASE_URL',
  'TEST_DATABASE_URL',
  'CLOUDFLARE_R2_ACCESS_KEY_ID',
  'CLOUDFLARE_R2_SECRET_ACCESS_KEY',
  'PHI_ENCRYPTION_KEY',
  'PHI_ENCRYPTION_KEYS_PREVIOUS',
  'LOMA_BACKUP_RECOVERY_PRIVATE_KEY',
  'LOMA_BACKUP_RECOVERY_PASSPHRASE',
  'LOMA_BACKUP_PING_URL',
] as const satisfies readonly VariableName[];

/** Variables that may come as NAME_FILE: the secret ones, and one whose value is a file by nature. */
export const fileNames: readonly VariableName[] = [...secretNames, 'LOMA_BACKUP_RECOVERY_PUBLIC_KEY'];

/** The flags that stand for a variable, or name the file that holds it: an error names what was given. */
const flagNames: Partial<Record<VariableName, string>> = {
  DATABASE_URL: '--target',
  TEST_DATABASE_URL: '--target',
  LOMA_BACKUP_RECOVERY_PRIVATE_KEY: '--recovery-key',
  LOMA_BACKUP_COMPRESSION: '--compression',
  LOMA_BACKUP_PING_URL: '--ping',
};

/** Where settings come from. */
export interface SettingsSource {
  /** Flags that stand for a variable (`--target` for DATABASE_URL), by the variable's name. */
  flags: Partial<Record<VariableName, string>>;
  /** Flags that name a file that holds a variable's value. */
  files?: Partial<Record<VariableName, string>> | undefined;
  environment: Readonly<Record<string, string | undefined>>;
  /** Reads the file of a NAME_FILE variable; throws if it can't. */
  readFile: (file: string) => string;
}

/** The texts of all variables after flags, environment and files were merged, and what was wrong on the way. */
export interface MergedValues {
  values: Partial<Record<VariableName, string>>;
  problems: string[];
  /** What errors call a variable: the flag, when its value came from one. */
  nameOf: (variable: VariableName) => string;
  /** Variables whose file could not be read. */
  unread: Set<VariableName>;
}

/** The files that the environment names in the place of values. */
export function filesNamedIn(environment: SettingsSource['environment']): string[] {
  return fileNames.flatMap((name) => (environment[name]?.trim() ? [] : environment[`${name}_FILE`] || []));
}

/** Merges flags, environment and NAME_FILE. An empty variable counts as unset. */
export function mergeValues({flags, files, environment, readFile}: SettingsSource): MergedValues {
  const values: Partial<Record<VariableName, string>> = {};
  const problems: string[] = [];
  const unread = new Set<VariableName>();
  const nameOf = (name: VariableName) => (flags[name] || files?.[name] ? flagNames[name] : undefined) ?? name;
  for (const name of variableNames) {
    const flagFile = files?.[name];
    const file = flagFile ?? (fileNames.includes(name) ? environment[`${name}_FILE`] : undefined);
    const given = flagFile ? undefined : flags[name] || environment[name]?.trim();
    if (given) {
      values[name] = given;
    } else if (file) {
      const origin = flagFile ? nameOf(name) : `${name}_FILE`;
      try {
        const text = readFile(file).trim();
        if (text) values[name] = text;
        else {
          unread.add(name);
          problems.push(`${origin} names an empty file (${file}): put the value of ${name} in it.`);
        }
      } catch (error) {
        unread.add(name);
        const why = error instanceof Error ? error.message : String(error);
        problems.push(`${origin} cannot be read (${why}): does the file exist, and may this user read it?`);
      }
    }
  }
  return {values, problems, nameOf, unread};
}

const keyMend = 'Use the key that is kept in the safe; a new one for new backups: openssl rand -hex 32.';

type Reader<T> = (merged: MergedValues) => T | undefined;

type DatabaseVariable = 'DATABASE_URL' | 'TEST_DATABASE_URL';

function readOptionalConnection(variable: DatabaseVariable): Reader<Connection | undefined> {
  return (merged) => (merged.values[variable] === undefined ? undefined : readConnection(variable)(merged));
}

function readConnection(variable: DatabaseVariable): Reader<Connection> {
  return ({values, problems, nameOf}) => {
    const url = values[variable];
    if (url === undefined) {
      problems.push(`${variable} is not set: set it to the URL of the database, postgresql://…@host:5432/database.`);
      return undefined;
    }
    const connection = parseConnectionUrl(url);
    if (typeof connection !== 'string') return connection;
    problems.push(`${nameOf(variable)} ${connection}.`);
    return undefined;
  };
}

const bucketPattern = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;

function readBucket({values, problems}: MergedValues, variable: VariableName, fallback: string): string {
  const bucket = values[variable] ?? fallback;
  if (!bucketPattern.test(bucket)) {
    problems.push(
      `${variable} is not a bucket name (${JSON.stringify(bucket)}): 3 to 63 lower-case letters, digits, dots and hyphens.`,
    );
  }
  return bucket;
}

const readStore: Reader<StoreSettings> = (merged) => {
  const buckets = {
    backupsBucket: readBucket(merged, 'CLOUDFLARE_R2_BUCKET_BACKUPS', 'loma-db-backups'),
    filesBucket: readBucket(merged, 'CLOUDFLARE_R2_BUCKET_FILES', 'loma-phi-files'),
  };
  const store = merged.values.LOMA_BACKUP_STORE ? readDirectory(merged) : readS3(merged);
  return store && {...store, ...buckets};
};

const readDirectory: Reader<DirectoryStoreSettings> = ({values, problems}) => {
  const text = values.LOMA_BACKUP_STORE ?? '';
  try {
    const url = new URL(text);
    const folder = fileURLToPath(url);
    if (url.hostname === '' && path.isAbsolute(folder) && folder !== '/') {
      return {kind: 'directory', path: path.resolve(folder)};
    }
  } catch {
    // Said below.
  }
  problems.push(
    `LOMA_BACKUP_STORE must be file:///absolute/directory (it is ${JSON.stringify(text)}); leave it unset to use R2.`,
  );
  return undefined;
};

const readS3: Reader<S3StoreSettings> = ({values, problems}) => {
  const endpoint = readEndpoint(values, problems);
  const region = values.CLOUDFLARE_R2_REGION ?? 'auto';
  if (!/^[a-z0-9-]+$/i.test(region)) {
    problems.push('CLOUDFLARE_R2_REGION must be the name of a region, such as eu-central-1; leave it unset for R2.');
  }
  const names = ['CLOUDFLARE_R2_ACCESS_KEY_ID', 'CLOUDFLARE_R2_SECRET_ACCESS_KEY'] as const;
  const missing: string[] = names.filter((name) => values[name] === undefined);
  if (!values.CLOUDFLARE_R2_ACCOUNT_ID && !values.CLOUDFLARE_R2_ENDPOINT) missing.unshift('CLOUDFLARE_R2_ACCOUNT_ID');
  const {CLOUDFLARE_R2_ACCESS_KEY_ID: accessKeyId, CLOUDFLARE_R2_SECRET_ACCESS_KEY: secret} = values;
  if (missing.length > 0 || accessKeyId === undefined || secret === undefined) {
    problems.push(
      `R2 is not configured: ${missing.join(', ')} ${missing.length === 1 ? 'is' : 'are'} not set. ` +
        'Cloudflare dashboard, R2, "Manage R2 API tokens" gives all of them.',
    );
    return undefined;
  }
  if (endpoint === undefined) return undefined;
  return {kind: 's3', endpoint, region, accessKeyId, secretAccessKey: new Secret(secret)};
};

function readEndpoint(values: MergedValues['values'], problems: string[]): string | undefined {
  const {CLOUDFLARE_R2_ENDPOINT: endpoint, CLOUDFLARE_R2_ACCOUNT_ID: account} = values;
  if (endpoint !== undefined) {
    const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
    if (url && /^https?:$/.test(url.protocol) && url.pathname === '/' && !url.search && !url.username)
      return url.origin;
    problems.push(
      'CLOUDFLARE_R2_ENDPOINT must look like https://<account>.eu.r2.cloudflarestorage.com, without a path.',
    );
    return undefined;
  }
  if (account === undefined) return undefined;
  if (/^[0-9a-f]{32}$/i.test(account)) return `https://${account}.r2.cloudflarestorage.com`;
  problems.push(
    'CLOUDFLARE_R2_ACCOUNT_ID must be the 32 hex characters that the R2 page of the Cloudflare dashboard shows.',
  );
  return undefined;
}

/** RSA keys below this size are not to be relied on after 2030 (NIST SP 800-57 part 1, table 4). */
const fewestRsaBits = 3072;

/** The PEM text, if it is an RSA public key. A private key is refused: it has no business on a machine that backs up. */
const readRecoveryPublicKey: Reader<string> = ({values, problems}) => {
  // In a .env file a PEM text often stands on one line.
  const text = values.LOMA_BACKUP_RECOVERY_PUBLIC_KEY?.replaceAll('\\n', '\n');
  if (text === undefined) return undefined;
  const problem = describeRecoveryKey(text);
  if (problem === undefined) return text;
  problems.push(
    `LOMA_BACKUP_RECOVERY_PUBLIC_KEY must be an RSA public key of ${fewestRsaBits} bits or more, PEM: ${problem}. ` +
      'README.md, "A recovery key", makes one.',
  );
  return undefined;
};

function describeRecoveryKey(text: string): string | undefined {
  if (text.includes('PRIVATE KEY')) return 'it is a private key, which belongs into the safe';
  try {
    const {asymmetricKeyType: type, asymmetricKeyDetails: details} = createPublicKey(text);
    if (type !== 'rsa') return `it is of type ${type}`;
    const bits = details?.modulusLength ?? 0;
    return bits < fewestRsaBits ? `it has ${bits} bits` : undefined;
  } catch {
    return 'it is no public key';
  }
}

const readOptionalKeys: Reader<KeySettings> = (merged) => {
  const {values, problems} = merged;
  const recoveryPublicKey = readRecoveryPublicKey(merged);
  const {PHI_ENCRYPTION_KEY: current, PHI_ENCRYPTION_KEYS_PREVIOUS: list = ''} = values;
  const previous = list.split(',').flatMap((text) => text.trim() || []);
  if (current !== undefined && !isKey(current)) {
    problems.push(`PHI_ENCRYPTION_KEY must be 64 hex characters: ${describeKey(current)}. ${keyMend}`);
  }
  for (const [index, key] of previous.entries()) {
    if (isKey(key)) continue;
    problems.push(
      `PHI_ENCRYPTION_KEYS_PREVIOUS must be keys of 64 hex characters, separated by commas: number ${index + 1}: ${describeKey(key)}.`,
    );
  }
  return current === undefined
    ? undefined
    : {
        current: new Secret(current),
        previous: previous.map((key) => new Secret(key)),
        ...(recoveryPublicKey === undefined ? {} : {recoveryPublicKey}),
      };
};

const readKeys: Reader<KeySettings> = (merged) => {
  if (merged.values.PHI_ENCRYPTION_KEY === undefined) {
    merged.problems.push(`PHI_ENCRYPTION_KEY must be 64 hex characters: it is not set. ${keyMend}`);
  }
  return readOptionalKeys(merged);
};

const readReadingKeys: Reader<AllSettings['readingKeys']> = (merged) => {
  const {LOMA_BACKUP_RECOVERY_PRIVATE_KEY: pem, LOMA_BACKUP_RECOVERY_PASSPHRASE: passphrase} = merged.values;
  if (pem === undefined) {
    // One that was given and could not be read is meant to stand in for the key.
    const isMeant = merged.unread.has('LOMA_BACKUP_RECOVERY_PRIVATE_KEY');
    return {keys: (isMeant ? readOptionalKeys : readKeys)(merged), recovery: undefined};
  }
  const recovery = {
    pem: new Secret(pem.replaceAll('\\n', '\n')),
    passphrase: passphrase === undefined ? undefined : new Secret(passphrase),
  };
  return {keys: readOptionalKeys(merged), recovery};
};

function isKey(text: string): boolean {
  return /^[0-9a-f]{64}$/i.test(text);
}

/** What is wrong with a key, without showing it. */
function describeKey(text: string): string {
  const foreign = text.search(/[^0-9a-f]/i);
  if (text.length !== 64) return `it has ${text.length}`;
  return `character ${foreign + 1} is not one of 0-9 and a-f`;
}

const readCompression: Reader<CompressionName> = ({values, problems, nameOf}) => {
  const text = values.LOMA_BACKUP_COMPRESSION ?? 'gzip';
  const name = compressionNames.find((candidate) => candidate === text);
  if (!name)
    problems.push(
      `${nameOf('LOMA_BACKUP_COMPRESSION')} must be ${compressionNames.join(' or ')}: it is ${JSON.stringify(text)}.`,
    );
  return name;
};

const readPingUrl: Reader<Secret | undefined> = ({values, problems, nameOf}) => {
  const {LOMA_BACKUP_PING_URL: text} = values;
  if (text === undefined) return undefined;
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return new Secret(text);
  problems.push(`${nameOf('LOMA_BACKUP_PING_URL')} must look like https://hc-ping.com/<uuid>.`);
  return undefined;
};

const readers: {[N in Need]: Reader<AllSettings[N]>} = {
  database: readConnection('DATABASE_URL'),
  optionalDatabase: readOptionalConnection('DATABASE_URL'),
  optionalTestDatabase: readOptionalConnection('TEST_DATABASE_URL'),
  store: readStore,
  keys: readKeys,
  optionalKeys: readOptionalKeys,
  readingKeys: readReadingKeys,
  compression: readCompression,
  pingUrl: readPingUrl,
};

/**
 * The settings that a command needs, frozen.
 * @throws BackupError CONFIGURATION_INVALID that names every wrong or missing setting with its mend
 */
export function resolveSettings<N extends Need>(needs: readonly N[], source: SettingsSource): Pick<AllSettings, N> {
  const merged = mergeValues(source);
  const settings: Partial<AllSettings> = {};
  for (const need of needs) Object.assign(settings, {[need]: readers[need](merged)});
  const problems = [...new Set(merged.problems)];
  const [first, ...others] = problems;
  if (first !== undefined) {
    const message =
      others.length === 0 ? first : [`${problems.length} settings are wrong or missing:`, ...problems].join('\n  - ');
    throw new BackupError(message, {
      code: 'CONFIGURATION_INVALID',
      kind: 'configuration',
      hint: 'README.md, "Settings", explains every variable.',
    });
  }
  return Object.freeze(settings) as Pick<AllSettings, N>;
}
