# frozen_string_literal: true

require 'spec_helper'

describe 'Om_messaging::Value' do
  it { is_expected.to allow_values('', 'x', 'amqp://u:p@h:1/?a=b', %q(@:/?#%$"'{}\ é), '[x]', '= x') }
  it { is_expected.not_to allow_values(' x', "x\t", "x\n", "a\nb", "a\r\nb", "a\0b", 1, true, nil) }
end

describe 'Om_messaging::Key' do
  it { is_expected.to allow_values('transport_url', 'a-b.c') }
  it { is_expected.not_to allow_values('', 'a b', 'a=b', 'a:b', '#a', '[a', "a\n", 1) }
end

describe 'Om_messaging::Section' do
  it { is_expected.to allow_values('DEFAULT', 'oslo_messaging_amqp', 'filter:a b') }
  it { is_expected.not_to allow_values('', ' a', 'a ', 'a]', '[a', "a\nb") }
end

describe 'Om_messaging::Settings' do
  it { is_expected.to allow_values({}, { 'a' => {} }, { 'a' => { 'k' => 'v', 'gone' => nil } }) }
  it { is_expected.not_to allow_values({ 'a' => nil }, { 'a' => { 'k' => 1 } }, { 'a' => { 'k' => ['v'] } }) }
end

describe 'Om_messaging::Config' do
  settings = { 'settings' => { 'a' => { 'k' => 'v' } } }
  it { is_expected.to allow_values(settings, settings.merge('owner' => 'nova', 'group' => 'nova', 'mode' => '0640')) }
  it { is_expected.to allow_values(settings.merge('units' => []), settings.merge('units' => ['nova-compute@1'])) }
  it { is_expected.not_to allow_values({}, settings.merge('unit' => ['x']), settings.merge('mode' => '9')) }
  it { is_expected.not_to allow_values(settings.merge('units' => 'x'), settings.merge('owner' => '')) }
end

describe 'Om_messaging::Unit' do
  it { is_expected.to allow_values({}, { 'ensure' => 'running', 'enable' => true, 'config_digest' => '0' * 64 }) }
  it { is_expected.not_to allow_values({ 'ensure' => 'restarted' }, { 'config_digest' => 'A' * 64 }) }
  it { is_expected.not_to allow_values({ 'config_digest' => "#{'0' * 64}\n" }, { 'enabled' => true }) }
end

describe 'Om_messaging::Unit_name' do
  it { is_expected.to allow_values('nova-compute@1', 'a.service', 'dev-sda\x2d1') }
  it { is_expected.not_to allow_values('', '.', '..', '../x', 'a/b', '-x', 'a b', "a\n") }
end
