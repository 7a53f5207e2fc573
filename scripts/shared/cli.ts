/** The real command line, as a person would call it. */
import {randomBytes} from 'node:crypto';
import path from 'node:path';
import {variableNames} from '../../src/lib/config.ts';
import type {ObjectHandle} from '../../test/support/object-handle.ts';

export const projectDirectory = path.dirname(path.dirname(import.meta.dirname));

export const cli = {file: process.execPath, script: path.join(projectDirectory, 'bin', 'run.js')} as const;

/** This process's environment without settings of loma-backup or PostgreSQL that the caller may have, and with these. */
export function environmentWith(settings: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const foreign = new Set<string>(variableNames.flatMap((name) => [name, `${name}_FILE`]));
  const kept = Object.entries(process.env).filter(([name]) => !foreign.has(name) && !/^(PG|LOMA_)/.test(name));
  return {...Object.fromEntries(kept), ...settings};
}

/** A fresh key, as `openssl rand -hex 32` makes one. */
export function newKey(): string {
  return randomBytes(32).toString('hex');
}

/** The settings that lead to a bucket of a throw-away S3 server. */
export function objectSettings(server: ObjectHandle, bucket: string): Record<string, string> {
  return {
    CLOUDFLARE_R2_ENDPOINT: server.endpoint,
    CLOUDFLARE_R2_ACCESS_KEY_ID: server.accessKeyId,
    CLOUDFLARE_R2_SECRET_ACCESS_KEY: server.secretAccessKey,
    CLOUDFLARE_R2_BUCKET_BACKUPS: bucket,
  };
}
