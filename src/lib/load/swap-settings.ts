/** Settings of a database as statements. */
import {quoteIdentifier, quoteLiteral} from '../postgres/query.ts';
import type {DatabaseSetting} from './swap-facts.ts';

/** Parameters whose value is a list of quoted names (GUC_LIST_QUOTE): as one literal it would be one name. */
const listParameters = new Set([
  'local_preload_libraries',
  'search_path',
  'session_preload_libraries',
  'shared_preload_libraries',
  'temp_tablespaces',
  'unix_socket_directories',
]);

/** The value of a setting as SET takes it; so does pg_dump write it (makeAlterConfigCommand). */
export function settingLiteral(name: string, value: string): string {
  if (!listParameters.has(name.toLowerCase())) return quoteLiteral(value);
  const items = [...value.matchAll(/\s*(?:"((?:[^"]|"")*)"|([^,"]+))\s*(?:,|$)/g)].map(
    ([, quoted, plain = '']) => quoted?.replaceAll('""', '"') ?? plain.trim(),
  );
  return items.length === 0 ? "''" : items.map(quoteLiteral).join(', ');
}

/** The statement that makes a setting in a database. */
export function settingSql(database: string, {role, name, value}: DatabaseSetting): string {
  const whose =
    role === undefined
      ? `ALTER DATABASE ${quoteIdentifier(database)}`
      : `ALTER ROLE ${quoteIdentifier(role)} IN DATABASE ${quoteIdentifier(database)}`;
  return `${whose} SET ${quoteIdentifier(name)} TO ${settingLiteral(name, value)};`;
}

/** Those that the role may make. */
export function settingsSql(database: string, settings: readonly DatabaseSetting[]): string[] {
  return settings.filter(({maySet}) => maySet).map((setting) => settingSql(database, setting));
}

/** Settings that would keep a restore out: made at the very end. */
export function isForTheEnd({name}: DatabaseSetting): boolean {
  return ['default_transaction_read_only', 'transaction_read_only'].includes(name);
}
